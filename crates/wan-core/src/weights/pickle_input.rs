//! The operands of a pickle's opcodes.

/// A pickle's bytes, read from front to back.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    /// Position of the next byte.
    pub at: usize,
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or("the pickle ends early")?;
        self.at += n;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "the pickle ends early".to_string())
    }

    /// A little-endian two's complement number of up to eight bytes.
    pub fn long(&mut self) -> Result<i64, String> {
        let n = self.byte()? as usize;
        if n > 8 {
            return Err(format!("the pickle has a number of {n} bytes"));
        }
        let bytes = self.take(n)?;
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..n].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(wide))
    }

    pub fn text(&mut self, n: usize) -> Result<&'a str, String> {
        std::str::from_utf8(self.take(n)?).map_err(|_| "the pickle has text that is not UTF-8".into())
    }

    pub fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let n = rest.iter().position(|b| *b == b'\n').ok_or("the pickle ends early")?;
        self.at += n + 1;
        std::str::from_utf8(&rest[..n]).map_err(|_| "the pickle has a global that is not UTF-8".into())
    }
}
