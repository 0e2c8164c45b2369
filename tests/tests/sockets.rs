//! Sockets: within the job they go on as if nothing had been; those that lead outside are told.

use ckpt_tests::{Identity, Job, program_survives};

program_survives!(unix_stream);
program_survives!(unix_datagram);
program_survives!(unix_listening);
program_survives!(unix_rights);
program_survives!(unix_credentials);

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

chains! { unix_stream unix_datagram unix_listening unix_rights unix_credentials }
