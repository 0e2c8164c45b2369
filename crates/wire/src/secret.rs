//! Where the agents of a job find their coordinator.

use siphasher::sip128::SipHasher24;

/// How the name of the coordinator's abstract socket begins. 32 hexadecimal digits follow: see [`Secret::socket`].
pub const SOCKET_PREFIX: &str = "ckpt/";
/// Bytes of a socket's name, without the zero byte of an abstract one.
pub const SOCKET_NAME_LEN: usize = SOCKET_PREFIX.len() + 32;

/// What a job's processes and its coordinators know, and other users do not. The job keeps it for life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Secret(pub u128);

impl Secret {
    /// Reads the value of [`crate::ENV_SECRET`].
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        (text.len() == 32 && text.iter().all(u8::is_ascii_hexdigit)).then_some(())?;
        u128::from_str_radix(core::str::from_utf8(text).ok()?, 16).ok().map(Self)
    }

    /// What a message has of it.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// The value of [`crate::ENV_SECRET`].
    #[must_use]
    pub fn text(self) -> [u8; 32] {
        hexadecimal(self.0)
    }

    /// The name of the socket in the pid namespace with this inode number.
    ///
    /// Two restarts of one image live in different pid namespaces, so their coordinators have different names, while the environment that
    /// the job keeps from before stays right. Anybody can see the names in use (`/proc/net/unix`), and nobody can tell the next one from
    /// them, to take it first.
    #[must_use]
    pub fn socket(self, pid_namespace: u64) -> [u8; SOCKET_NAME_LEN] {
        let hash = SipHasher24::new_with_key(&self.0.to_le_bytes()).hash(&pid_namespace.to_le_bytes());
        let mut name = [0; SOCKET_NAME_LEN];
        let (prefix, digits) = name.split_at_mut(SOCKET_PREFIX.len());
        prefix.copy_from_slice(SOCKET_PREFIX.as_bytes());
        digits.copy_from_slice(&hexadecimal(hash.as_u128()));
        name
    }
}

fn hexadecimal(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (i, digit) in text.iter_mut().rev().enumerate() {
        let value = (number >> (4 * i)) as u8 & 0xf;
        *digit = value + if value < 10 { b'0' } else { b'a' - 10 };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_it_is_written() {
        let secret = Secret(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
        assert_eq!(&secret.text(), b"0123456789abcdeffedcba9876543210");
        assert_eq!(Secret::parse(&secret.text()), Some(secret));
        for text in ["", "0123", "0123456789abcdeffedcba987654321g", "+123456789abcdeffedcba9876543210"] {
            assert_eq!(Secret::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn names_differ_by_secret_and_namespace() {
        let names = [Secret(1).socket(7), Secret(1).socket(8), Secret(2).socket(7)];
        assert!(names[0] != names[1] && names[0] != names[2]);
        assert!(names.iter().all(|name| name.starts_with(b"ckpt/")));
    }
}
