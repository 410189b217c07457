//! A trial of the kernels that are for one kind of GPU alone: few rows, at small sizes, before such kernels are relied on.

use candle_core::Device;
use wan_ops::SpecialKernels;

use crate::{Row, Runner, Selection, ops};

/// Runs the rows in which a GPU's own kernels of `op` compute, in every format, and over so many tokens that each part of
/// their pipelines is used more than once.
///
/// Errors: the first row that is not in order, in words.
pub fn trial(device: &Device, op: SpecialKernels) -> Result<(), String> {
    let bad = rows(device, op).into_iter().find(|row| !row.is_good());
    bad.map_or(Ok(()), |row| Err(row.to_string().split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn rows(device: &Device, op: SpecialKernels) -> Vec<Row> {
    let only = names(op).iter().map(|name| format!("{}/{name} ", ops::GROUP)).collect();
    let selection = Selection { only, deadline: None };
    let mut sink = |_: &Row| {};
    let mut runner = Runner::new(device, &selection, &mut sink);
    ops::run(&mut runner, device, ops::Scale { full: false, tokens: 0, seed: 1 });
    runner.finish()
}

/// Starts of the rows' names, a space before their sizes.
fn names(op: SpecialKernels) -> &'static [&'static str] {
    match op {
        SpecialKernels::Attention => &[
            "attention exact bf16",
            "attention f16 130x200",
            "attention +33 bf16",
            "attention +33 f16",
            "attention sage bf16",
            "attention of products sage bf16",
            "attention of products sage f16",
        ],
        SpecialKernels::Conv3d => &[
            "conv3d bf16 3x3x3 64->96",
            "conv3d f16 3x3x3 64->96",
            "conv3d up bf16 1x3x3 32->96",
            "conv3d up f16 1x3x3 32->96",
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_a_row() {
        for op in SpecialKernels::ALL {
            let rows = rows(&Device::Cpu, op);
            for name in names(op) {
                let found = rows.iter().filter(|row| row.name.starts_with(&format!("{name} "))).count();
                assert!(found > 0, "no row is called `{name} ...`");
            }
            assert!(rows.iter().all(Row::is_good), "{rows:?}");
        }
    }
}
