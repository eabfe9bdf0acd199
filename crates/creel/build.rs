//! How the executable is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=layout.ld");
    let target = std::env::var("TARGET").unwrap_or_default();
    if !target.ends_with("linux-gnu") {
        return;
    }
    // What starts containers lies together, so that little of the rest is mapped along with it.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{here}/layout.ld");
    // What one build has compiled and kept is not for another: creel_sys::build_id. Not every linker's default.
    println!("cargo:rustc-link-arg-bins=-Wl,--build-id");
}
