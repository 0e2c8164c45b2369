//! Sockets: within the job they go on as if nothing had been; those that lead outside are told.

use ckpt_tests::{Identity, Job, program_survives};

program_survives!(unix_stream);
program_survives!(unix_datagram);
program_survives!(unix_listening);
program_survives!(unix_rights);
program_survives!(unix_credentials);
program_survives!(tcp_loopback);
program_survives!(tcp_listening);
program_survives!(tcp_urgent_half_closed);
program_survives!(udp_loopback);
program_survives!(netlink);

/// Makes the test `chains::NAME` for each program: three restarts, each from an image of the one before.
macro_rules! chains {
    ($($name:ident)*) => {
        mod chains {
            $(#[test] fn $name() {
                use super::{Identity, Job};
                Job::program(stringify!($name), 400, &[]).survives_chain(Identity::User, 3);
            })*
        }
    };
}

chains! {
    unix_stream unix_datagram unix_listening unix_rights unix_credentials
    tcp_loopback tcp_listening tcp_urgent_half_closed udp_loopback netlink
}
