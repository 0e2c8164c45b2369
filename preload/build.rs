//! Links the agent's library without the C library: a symbol that is missing is an error here, not in somebody's job.
fn main() {
    // Every mapping and every page that is touched is paid for by each program that a job runs: one read-only segment and one writable one.
    for argument in [
        "-nostdlib",
        "-nostartfiles",
        "-Wl,-z,defs",
        "-Wl,-z,now",
        "-Wl,-z,norelro",
        "-Wl,-z,noseparate-code",
        "-Wl,--gc-sections",
        "-Wl,--hash-style=gnu",
    ] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
