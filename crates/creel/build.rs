//! How the executable is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=layout.ld");
    let target = std::env::var("TARGET").unwrap_or_default();
    if !target.ends_with("linux-gnu") {
        return;
    }
    // At a fixed address: a static program that may lie anywhere writes 23,000 addresses into 94 pages of its own at every
    // start, before main, and the container's process copies them again. ARCHITECTURE.md, "Start-up", has the figures.
    println!("cargo:rustc-link-arg-bins=-no-pie");
    println!("cargo:rustc-link-arg-bins=-static");
    // What starts containers lies together, so that little of the rest is mapped along with it.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{here}/layout.ld");
}
