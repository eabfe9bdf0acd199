//! The program of the embedded `hello` image: from inside a container it tells what a container is.
//!
//! It reads /proc like any program could. Whatever is missing is said to be unknown; nothing here fails.

mod facts;
mod page;

use std::io::{IsTerminal as _, Write as _};

pub use facts::Facts;
pub use page::render;

/// The program's `main`: reads the facts, prints the page, returns exit code 0 (1 if the page cannot be written).
pub fn main() -> i32 {
    hello_from_inside()
}

/// The same under the name that says what it is.
pub fn hello_from_inside() -> i32 {
    let mut out = std::io::stdout().lock();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let page = render(&Facts::read(), colour);
    i32::from(out.write_all(page.as_bytes()).and_then(|()| out.flush()).is_err())
}
