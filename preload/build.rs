//! Links the agent's library without the C library: a symbol that is missing is an error here, not in somebody's job.
fn main() {
    for argument in ["-nostdlib", "-nostartfiles", "-Wl,-z,defs", "-Wl,-z,now", "-Wl,-z,relro", "-Wl,--gc-sections", "-Wl,--hash-style=gnu"] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
