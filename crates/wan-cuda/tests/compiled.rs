//! What the compiler made of the hot kernels: registers from the assembler's report, instructions from the
//! disassembler where the CUDA toolkit has one (`make cuda-toolkit` puts it there).
//!
//! A row that fails is no error of the kernel's results. It says that a change, or another compiler, made code that is
//! slower in a way that no test of results shows: fewer blocks at a time, a tensor-core instruction that is emulated,
//! an array in memory instead of registers.

#![cfg(feature = "cuda")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use wan_cuda::gpu::{IMAGES, Image, Target, parse_report};

/// How often an instruction, named without modifiers or with all, may occur on some architectures; on all where none is
/// named.
type Count = (&'static str, RangeInclusive<usize>, &'static [Target]);

/// What a family of kernels is held to: those whose names begin so, in every format, on every architecture.
struct Family {
    kernels: &'static str,
    /// Most registers of a thread.
    registers: u32,
    instructions: &'static [Count],
}

const EVERYWHERE: &[Target] = &[];
/// Where 8-bit floats have mma instructions of their own.
const FP8_MMA: &[Target] = &[Target::Cubin(8, 9), Target::Cubin(12, 0)];

const fn family(kernels: &'static str, registers: u32, instructions: &'static [Count]) -> Family {
    Family { kernels, registers, instructions }
}

/// The longest name that fits counts. Tensor-core instructions are those of one unrolled tile: 128 `HMMA` are the two
/// products of a warp's 16 queries with 64 keys of 128 channels.
const FAMILIES: &[Family] = &[
    // 168 registers: one block of 384 threads, which warpgroups then share out anew.
    family(
        "attention_sage_sm90",
        168,
        &[
            ("IGMMA", 8..=8, EVERYWHERE),
            ("QGMMA", 8..=8, EVERYWHERE),
            ("MUFU", 1..=280, EVERYWHERE),
            ("HMMA", 0..=0, EVERYWHERE),
        ],
    ),
    family(
        "attention_sm90",
        168,
        &[("HGMMA", 64..=64, EVERYWHERE), ("MUFU", 1..=540, EVERYWHERE), ("HMMA", 0..=0, EVERYWHERE)],
    ),
    family("attention_sm90_pack", 40, &[]),
    family("attention_mma_128", 240, &[("HMMA", 128..=128, EVERYWHERE), ("LDSM", 1..=72, EVERYWHERE)]),
    family("attention_mma_384", 255, &[("HMMA", 128..=128, EVERYWHERE), ("LDSM", 1..=96, EVERYWHERE)]),
    family("attention_mma_64", 168, &[("HMMA", 64..=64, EVERYWHERE), ("LDSM", 1..=36, EVERYWHERE)]),
    family(
        "attention_sage_half",
        248,
        &[("IMMA", 64..=64, EVERYWHERE), ("HMMA.16816.F16", 128..=128, EVERYWHERE)],
    ),
    family(
        "attention_sage_fp8",
        208,
        &[
            ("IMMA", 64..=64, EVERYWHERE),
            ("QMMA.16832.F16.E4M3.E4M3", 64..=64, FP8_MMA),
            ("HMMA", 0..=0, FP8_MMA),
        ],
    ),
    family(
        "conv3d_sm90",
        128,
        &[
            ("HGMMA", 12..=12, EVERYWHERE),
            ("LDSM", 12..=12, EVERYWHERE),
            ("WARPGROUP.DEPBAR.LE", 7..=7, EVERYWHERE), // six that leave products under way, one at the end of a row
            ("HMMA", 0..=0, EVERYWHERE),
        ],
    ),
    family("conv3d_wide", 192, &[("HMMA", 48..=48, EVERYWHERE), ("LDSM", 1..=14, EVERYWHERE)]),
    family("conv3d_narrow", 96, &[("HMMA", 8..=8, EVERYWHERE), ("LDSM", 1..=6, EVERYWHERE)]),
    family("residual_layer_norm", 80, &[]),
    family("layer_norm", 64, &[]),
    family("rms_norm", 64, &[]),
    family("channel_norm", 80, &[]),
    family("gated_residual", 48, &[]),
    family("activate", 64, &[]),
    // One block of the longest rows a multiprocessor; where there are threads for two the launch bounds make it 32.
    family("activate_quantise", 72, &[]),
    family("dequantise", 32, &[]),
    family("sage_quantise", 96, &[]),
    family("sage_statistics", 64, &[]),
];

fn family_of(kernel: &str) -> Option<&'static Family> {
    FAMILIES.iter().filter(|f| kernel.starts_with(f.kernels)).max_by_key(|f| f.kernels.len())
}

fn machine_code() -> impl Iterator<Item = &'static Image> {
    IMAGES.iter().filter(|image| image.target != Target::Ptx)
}

#[test]
fn registers_are_within_their_limits() {
    let (mut seen, mut wrong) = (Vec::new(), Vec::new());
    for image in machine_code() {
        for report in parse_report(image.report) {
            let Some(family) = family_of(report.kernel) else { continue };
            seen.push(family.kernels);
            if report.registers > family.registers || report.spills > 0 {
                let (target, limit) = (image.target, family.registers);
                wrong.push(format!("{report:?} for {target:?}, expected at most {limit} registers"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let built = |targets: &[Target]| machine_code().any(|image| targets.contains(&image.target));
    for family in FAMILIES {
        let expected = match family.kernels {
            name if name.contains("_sm90") => built(&[Target::Cubin(9, 0)]),
            "attention_sage_fp8" => built(FP8_MMA),
            _ => true,
        };
        assert!(seen.contains(&family.kernels) || !expected, "no kernel is called {}...", family.kernels);
    }
}

/// `wan_ops::SpecialKernels` names them for users.
#[test]
fn ops_with_kernels_for_one_kind_of_gpu_are_known() {
    let ops: BTreeSet<_> = IMAGES.iter().filter_map(Image::special_to).collect();
    let built = IMAGES.iter().any(|image| image.target == Target::Cubin(9, 0));
    assert_eq!(ops, if built { BTreeSet::from(["attention", "conv3d"]) } else { BTreeSet::new() });
}

#[test]
fn instructions_are_those_that_were_meant() {
    let Some(disassembler) = disassembler() else {
        eprintln!("not checked: no nvdisasm in CUDA_HOME");
        return;
    };
    let (mut kernels, mut wrong) = (0, Vec::new());
    for image in machine_code() {
        if !parse_report(image.report).iter().any(|r| family_of(r.kernel).is_some()) {
            continue;
        }
        for (kernel, listing) in listings(&disassembler, image) {
            let Some(family) = family_of(&kernel) else { continue };
            let count = counts(&listing);
            kernels += 1;
            // Loads and stores of local memory: arrays that are not in registers.
            let local: [Count; 2] = [("STL", 0..=0, EVERYWHERE), ("LDL", 0..=0, EVERYWHERE)];
            for (name, expected, on) in local.iter().chain(family.instructions) {
                let found = count.get(*name).copied().unwrap_or(0);
                if (on.is_empty() || on.contains(&image.target)) && !expected.contains(&found) {
                    let target = image.target;
                    wrong.push(format!(
                        "{kernel} for {target:?}: found {found} {name}, expected {expected:?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(kernels > 0, "no kernel was found in what nvdisasm wrote");
}

/// Hopper's attentions are written so that a warpgroup weighs scores while its products with the values of the tile
/// before run: between the wait for the scores (all but one group of products) and that for all. The compiler may wait
/// earlier, and has.
#[test]
fn scores_are_weighed_while_products_run() {
    let Some(disassembler) = disassembler() else {
        eprintln!("not checked: no nvdisasm in CUDA_HOME");
        return;
    };
    let hopper =
        |kernel: &str| kernel.starts_with("attention_sage_sm90") || kernel.starts_with("attention_sm90_");
    for image in machine_code().filter(|image| image.target == Target::Cubin(9, 0)) {
        if !parse_report(image.report).iter().any(|r| hopper(r.kernel)) {
            continue;
        }
        for (kernel, listing) in listings(&disassembler, image) {
            if !hopper(&kernel) || kernel.contains("_pack_") {
                continue;
            }
            let wait = |groups: usize| format!("DEPBAR.LE gsb0, {groups:#x}");
            let after_scores = listing.iter().skip_while(|i| !i.contains(&wait(1)));
            let between = after_scores.take_while(|i| !i.contains(&wait(0)));
            let exponentials = between.filter(|i| i.starts_with("MUFU.EX2")).count();
            // Of 64 scores a thread; the 8-bit kernel leaves half of them for later. Twice, as a tile may be the last.
            assert!(exponentials >= 64, "{kernel}: found {exponentials} exponentials, expected 64 or more");
        }
    }
}

/// `nvdisasm` of the toolkit.
fn disassembler() -> Option<PathBuf> {
    let home = ["CUDA_HOME", "CUDA_PATH"].iter().find_map(std::env::var_os)?;
    Some(PathBuf::from(home).join("bin/nvdisasm")).filter(|path| path.is_file())
}

/// The instructions of each kernel of an image, in order.
fn listings(disassembler: &Path, image: &Image) -> BTreeMap<String, Vec<String>> {
    let name = format!("wan-cuda-{}-{:?}-{}", image.file, image.target, std::process::id());
    let name = format!("{name}-{:?}", std::thread::current().id());
    let file = std::env::temp_dir().join(name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    std::fs::write(&file, image.bytes).expect("a temporary file");
    let output = Command::new(disassembler).arg("-c").arg(&file).output().expect("nvdisasm");
    std::fs::remove_file(&file).expect("the temporary file");
    assert!(output.status.success(), "nvdisasm: {}", String::from_utf8_lossy(&output.stderr));
    let mut kernels = BTreeMap::<String, Vec<String>>::new();
    let mut kernel = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(name) = line.strip_prefix(".text.").and_then(|l| l.strip_suffix(':')) {
            kernel = name.to_string();
        } else if let Some(instruction) = instruction(line) {
            kernels.entry(kernel.clone()).or_default().push(instruction.to_string());
        }
    }
    kernels
}

/// How often each instruction occurs, by its short name and by its whole one.
fn counts(listing: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for instruction in listing {
        let name = instruction.split_whitespace().next().unwrap_or_default();
        let short = name.split('.').next().unwrap_or(name);
        for name in BTreeSet::from([name, short]) {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

/// A line's instruction: of `/*0a10*/  @!P0 HMMA.16816.F32.BF16 R4, ... ;` all from its name on.
fn instruction(line: &str) -> Option<&str> {
    let (address, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
    if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let text = rest.trim_start();
    let text = if text.starts_with('@') { text.split_once(' ')?.1.trim_start() } else { text };
    Some(text.split(';').next()?.trim_end())
}

#[test]
fn lines_of_the_disassembly_are_read() {
    let line = "        /*0a10*/                   @!P0 HMMA.16816.F32.BF16 R4, R8, R12, R4 ;";
    assert_eq!(instruction(line), Some("HMMA.16816.F32.BF16 R4, R8, R12, R4"));
    let listing = [instruction(line).unwrap().to_string(), "HMMA.1688".to_string()];
    let expected = [("HMMA", 2), ("HMMA.16816.F32.BF16", 1), ("HMMA.1688", 1)];
    assert_eq!(counts(&listing), expected.into());
    assert_eq!(instruction("        /*0010*/                   EXIT ;"), Some("EXIT"));
    assert_eq!(instruction("        .section .text.a,\"ax\",@progbits"), None);
    assert_eq!(family_of("conv3d_wide_ragged_bf16").unwrap().kernels, "conv3d_wide");
    assert_eq!(family_of("residual_layer_norm_f32_bf16").unwrap().kernels, "residual_layer_norm");
    assert!(family_of("sage_channels").is_none());
}
