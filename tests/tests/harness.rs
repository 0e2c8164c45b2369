//! The jobs of the other tests by themselves: each gives the same output twice when nothing happens to it.

use ckpt_tests::{Identity, Job};

/// Every C program, with the arguments that it needs beyond its rounds.
#[test]
fn every_program_is_deterministic() {
    let programs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    for entry in std::fs::read_dir(programs).expect("the folder of the programs").flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "c") {
            continue;
        }
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        let source = std::fs::read_to_string(&path).expect("a program");
        assert!(source.starts_with("// "), "{name} does not say what it tests");
        if !source.contains("rounds_of(argc, argv)") {
            continue;
        }
        // It needs somebody outside to connect to.
        if name == "outside_sockets" {
            continue;
        }
        // What it is about is not on every machine.
        if ["avx512_registers", "cpuid_faulting", "tile_permission", "io_flusher"].contains(&name.as_str()) {
            continue;
        }
        let args: &[&str] = match name.as_str() {
            "blocking_calls" => &["threads"],
            "random_tree" => &["1"],
            "tcp_connecting" => &["0"],
            _ => &[],
        };
        let short = Job::program(&name, 5, args).run_plain(Identity::own());
        let longer = Job::program(&name, 9, args).run_plain(Identity::own());
        assert_eq!((short.code, longer.code), (0, 0), "{name}\n{}\n{}", short.told(), longer.told());
        assert!(short.stdout == longer.stdout && !short.stdout.is_empty(), "{name}: {}", longer.told());
    }
}
