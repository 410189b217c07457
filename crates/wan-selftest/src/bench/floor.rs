use candle_core::Device;

/// What a GPU does at most, by its vendor's word: operations and bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// bf16 products, f32 sums.
    pub bf16: f64,
    /// FP8 products, f32 sums; those of bf16 where there are none.
    pub fp8: f64,
    /// Device memory, bytes read and written.
    pub memory: f64,
}

/// Dense rates of the data sheets (H200, H100 SXM, A100; "NVIDIA Ada GPU architecture" and "NVIDIA RTX Blackwell GPU
/// architecture" for the GeForce cards): TFLOP/s in bf16 and FP8, TB/s. The first name that a GPU's name contains.
const KNOWN: [(&str, [f64; 3]); 7] = [
    ("H200", [989.5, 1979.0, 4.8]),
    ("H100", [989.5, 1979.0, 3.35]),
    ("A100", [312.0, 312.0, 2.04]),
    ("RTX 5090", [209.5, 419.0, 1.79]),
    ("RTX 4090", [165.2, 330.3, 1.01]),
    ("RTX 3090", [71.0, 71.0, 0.94]),
    ("RTX 4080", [97.5, 195.0, 0.72]),
];

impl Rates {
    /// Those of a device; none of the CPU and of GPUs that are not in the table.
    pub fn of(device: &Device) -> Option<Self> {
        Self::named(&name(device)?)
    }

    fn named(gpu: &str) -> Option<Self> {
        let (_, [bf16, fp8, memory]) = KNOWN.iter().find(|(name, _)| gpu.contains(name))?;
        Some(Self { bf16: bf16 * 1e12, fp8: fp8 * 1e12, memory: memory * 1e12 })
    }
}

/// The GPU's name.
pub fn name(device: &Device) -> Option<String> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return device.cuda_stream().context().name().ok();
    }
    let _ = device;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_known_by_name() {
        assert_eq!(Rates::named("NVIDIA H200").unwrap().fp8, 1979e12);
        assert_eq!(Rates::named("NVIDIA GeForce RTX 4090").unwrap().bf16, 165.2e12);
        assert_eq!(Rates::named("NVIDIA T4"), None);
    }
}
