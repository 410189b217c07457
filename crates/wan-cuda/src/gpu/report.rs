//! What the assembler says about kernels.

/// What one kernel takes on one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelReport<'a> {
    /// Its name.
    pub kernel: &'a str,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of registers kept in memory: stores and loads.
    pub spills: u32,
    /// Bytes of local memory of a thread, spills included.
    pub stack: u32,
}

/// Reads the output of `ptxas -v`.
pub fn parse(report: &str) -> Vec<KernelReport<'_>> {
    let mut kernels: Vec<KernelReport<'_>> = Vec::new();
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or(rest);
            kernels.push(KernelReport { kernel, registers: 0, spills: 0, stack: 0 });
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            kernel.stack = number_before(line, " bytes stack frame");
            kernel.spills =
                number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
        } else if line.contains("Used ") {
            kernel.registers = number_before(line, " registers");
        }
    }
    kernels
}

/// The lines in which the assembler says that code will be slower than it was written: products of warpgroups that wait
/// for each other, registers that a warpgroup does not get. They are no warnings, and no option makes them errors.
pub fn losses(report: &str) -> Vec<&str> {
    let told = |line: &&str| line.contains("Potential Performance Loss") || line.contains("setmaxnreg");
    report.lines().filter(told).collect()
}

/// The number that ends where `unit` begins; 0 where there is none.
fn number_before(line: &str, unit: &str) -> u32 {
    let Some((before, _)) = line.split_once(unit) else { return 0 };
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::{IMAGES, Image, Target, images_for};
    use super::*;

    #[test]
    fn figures_are_read() {
        let text = "ptxas info    : Compiling entry function 'a_f32' for 'sm_80'\n\
                    ptxas info    : Function properties for a_f32\n    \
                    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n\
                    ptxas info    : Used 39 registers, used 1 barriers, 1024 bytes smem, 396 bytes cmem[0]\n";
        assert_eq!(parse(text), [KernelReport { kernel: "a_f32", registers: 39, spills: 12, stack: 16 }]);
    }

    #[test]
    fn losses_are_found() {
        let lost = "ptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async instructions are serialized due to \
                    insufficient register resources for the wgmma pipeline in the function 'a_f16'";
        let ignored =
            "ptxas info    : (C7508) setmaxnreg ignored; unable to determine register count at entry";
        let report = format!("ptxas info    : 0 bytes gmem\n{lost}\n{ignored}\n");
        assert_eq!(losses(&report), [lost, ignored]);
    }

    /// Products of warpgroups run side by side, and each warpgroup has the registers it asks for.
    #[test]
    fn nothing_is_held_back() {
        for image in IMAGES {
            let losses = losses(image.report);
            assert!(losses.is_empty(), "{} for {:?}: {losses:?}", image.file, image.target);
        }
    }

    /// No kernel keeps registers in memory, on any architecture.
    #[test]
    fn nothing_spills() {
        let mut kernels = 0;
        for image in IMAGES.iter().filter(|image| image.target != Target::Ptx) {
            for kernel in parse(image.report) {
                assert_eq!(kernel.spills, 0, "{} in {} for {:?}", kernel.kernel, image.file, image.target);
                assert!(kernel.registers > 0, "{} in {}", kernel.kernel, image.file);
                kernels += 1;
            }
        }
        assert!(kernels > 0, "no report of the assembler was found");
    }

    /// The same kernels, whether the assembler or PTX tells their names.
    #[test]
    fn images_name_their_kernels() {
        let kernels = |target: Target| -> std::collections::BTreeSet<_> {
            IMAGES.iter().filter(|image| image.target == target).flat_map(Image::kernels).collect()
        };
        let (ptx, ampere) = (kernels(Target::Ptx), kernels(Target::Cubin(8, 0)));
        if ptx.is_empty() || ampere.is_empty() {
            return; // a build for chosen architectures
        }
        assert_eq!(ptx, ampere);
        assert!(ptx.contains("attention_mma_128_bf16"), "{ptx:?}");
    }

    /// Every GPU from 8.0 on has an image of every portable file, and Hopper alone those of its own.
    #[test]
    fn every_gpu_has_its_images() {
        let complete = ["8.0", "8.6", "8.9", "9.0", "10.0", "12.0"].len() + 1;
        let targets =
            IMAGES.iter().map(|i| format!("{:?}", i.target)).collect::<std::collections::BTreeSet<_>>();
        if targets.len() < complete {
            return; // a build for chosen architectures
        }
        let portable: Vec<_> = IMAGES.iter().filter(|i| i.target == Target::Ptx).map(|i| i.file).collect();
        assert!(portable.contains(&"layer_norm"));
        for (capability, best) in [
            ((8, 0), Target::Cubin(8, 0)),
            ((8, 6), Target::Cubin(8, 6)),
            ((8, 7), Target::Ptx),
            ((8, 9), Target::Cubin(8, 9)),
            ((9, 0), Target::Cubin(9, 0)),
            ((10, 0), Target::Cubin(10, 0)),
            ((10, 3), Target::Cubin(10, 0)),
            ((11, 0), Target::Ptx),
            ((12, 0), Target::Cubin(12, 0)),
            ((12, 1), Target::Cubin(12, 0)),
        ] {
            let images = images_for(capability);
            for file in &portable {
                let image = images.iter().find(|i| i.file == *file).unwrap_or_else(|| panic!("{file}"));
                assert_eq!(image.target, best, "{file} on {capability:?}");
            }
            assert_eq!(images.iter().any(|i| i.file.ends_with("_sm90")), {
                capability == (9, 0) && IMAGES.iter().any(|i| i.file.ends_with("_sm90"))
            });
        }
        assert!(images_for((7, 5)).is_empty());
    }
}
