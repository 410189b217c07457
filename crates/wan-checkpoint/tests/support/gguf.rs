//! Writes GGUF version 3 files.

use half::f16;

/// A tensor: ggml type 0 (F32) or 8 (Q8_0), or any other number with raw data.
pub struct Tensor<'a> {
    pub name: &'a str,
    pub shape: Vec<u64>,
    pub kind: u32,
    pub data: Vec<u8>,
}

/// The bytes of a file with these tensors and one metadata entry of each common form.
pub fn bytes(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let mut out = b"GGUF\x03\x00\x00\x00".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(3u64.to_le_bytes());
    let bytes = |out: &mut Vec<u8>, s: &[u8]| {
        out.extend((s.len() as u64).to_le_bytes());
        out.extend(s);
    };
    let text = |out: &mut Vec<u8>, s: &str| bytes(out, s.as_bytes());
    text(&mut out, "general.architecture");
    out.extend(8u32.to_le_bytes());
    text(&mut out, "wan");
    text(&mut out, "numbers");
    out.extend(9u32.to_le_bytes());
    out.extend(5u32.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    out.extend([0; 8]);
    text(&mut out, "tokens");
    out.extend(9u32.to_le_bytes());
    out.extend(8u32.to_le_bytes());
    out.extend(1u64.to_le_bytes());
    bytes(&mut out, b"\xe4\xb8"); // a part of a character
    let mut offset = 0u64;
    for tensor in tensors {
        text(&mut out, tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend(tensor.kind.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = (offset + tensor.data.len() as u64).next_multiple_of(32);
    }
    for tensor in tensors {
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&tensor.data);
    }
    out
}

/// Q8_0 blocks of `values`, whose number is a multiple of 32.
pub fn q8_0(values: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    for block in values.chunks_exact(32) {
        let scale = f16::from_f32(block.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0);
        out.extend(scale.to_le_bytes());
        let divisor = if scale.to_f32() == 0.0 { 1.0 } else { scale.to_f32() };
        out.extend(block.iter().map(|v| (v / divisor).round().clamp(-127.0, 127.0) as i8 as u8));
    }
    out
}
