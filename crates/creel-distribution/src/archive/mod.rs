//! Archives of images: docker-archive (`docker save`) and oci-archive (OCI image-layout in a tar).

mod load;
mod outer;
mod save;

pub use load::{LoadOptions, Loaded, load};
pub use save::{Saving, save};
