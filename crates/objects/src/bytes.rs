//! Sizes as people read them.

use std::fmt;

use bytesize::ByteSize;

/// A number of bytes for people, the only way that bytes are printed: `90 B`, `1.9 GiB`, `412 MiB`.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = ByteSize(self.0).display().iec();
        let whole = format!("{size:.0}");
        let digits = whole.chars().take_while(char::is_ascii_digit).count();
        // Three digits are enough.
        let text = if digits < 3 { format!("{size:.1}") } else { whole };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_up_to_three_digits() {
        let shown =
            [0, 90, 1000, 1023, 1024, 1 << 20, 5 << 30, 620 << 10, 1_298_416, 102_399].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(shown.join(", "), "0 B, 90 B, 1000 B, 1023 B, 1.0 KiB, 1.0 MiB, 5.0 GiB, 620 KiB, 1.2 MiB, 100 KiB");
        assert_eq!(format!("{:>9}", Bytes(90)), "     90 B");
    }
}
