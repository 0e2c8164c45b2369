//! Terminals: pseudo-terminals of the job, and the one that it was launched on.

use ckpt_tests::{Identity, Job, program_survives};

program_survives!(pty_pair);
program_survives!(pty_packet_mode);
program_survives!(pty_in_flight, "pty_in_flight", 150);
program_survives!(controlling_terminal);

#[test]
fn pseudo_terminals_survive_three_restarts() {
    for (name, rounds) in [("pty_pair", 300), ("pty_packet_mode", 300), ("pty_in_flight", 150), ("controlling_terminal", 300)] {
        Job::program(name, rounds, &[]).survives_chain(Identity::own(), 3);
    }
}
