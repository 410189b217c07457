//! Checkpoints of true names, shapes and dtypes with random values that keep activations realistic.

pub mod generator;
mod layout;
mod recipe;
mod write;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use wan_core::weights::Bytes;
use wan_core::{Result, Stored, WeightSet};

pub use layout::{Layout, TensorSpec};
pub use recipe::{Outliers, Recipe};
pub use write::{ModelSize, Synthesis, Written, synthesize};

use generator::{Stream, Table, draws};

/// Draws of a tensor's first row; those before choose the outliers.
const FIRST_ROW: u64 = 1 << 40;

/// Makes the bytes of a tensor, any rows of it apart from the others.
pub(crate) struct Maker {
    stream: Stream,
    plain: Table,
    outlier: Option<(u64, Table)>,
    columns: usize,
    value: usize,
    vector: bool,
}

impl Maker {
    /// Errors: those of [`Table::new`].
    pub fn new(spec: &TensorSpec, seed: u64) -> Result<Self> {
        let recipe = Recipe::of(spec);
        let table = |factor: f32| Table::new(spec.dtype, recipe.mean, recipe.deviation * factor);
        Ok(Self {
            stream: Stream::new(seed, &spec.name),
            plain: table(1.0)?,
            outlier: recipe
                .outliers
                .map(|o| Ok::<_, wan_core::Error>((o.every, table(o.factor)?)))
                .transpose()?,
            columns: spec.rows().1,
            value: spec.dtype.size_in_bytes(),
            vector: spec.rows().0 == 1,
        })
    }

    /// Writes whole rows from `first` on.
    pub fn fill(&self, first: usize, out: &mut [u8]) {
        if self.columns == 0 {
            return;
        }
        let draws = draws(self.columns);
        for (row, bytes) in (first as u64..).zip(out.chunks_mut(self.columns * self.value)) {
            let from = FIRST_ROW + row * draws;
            match &self.outlier {
                Some((every, table)) if !self.vector && self.stands_out(row, *every) => {
                    table.fill(self.stream, from, bytes);
                }
                _ => self.plain.fill(self.stream, from, bytes),
            }
            if let Some((every, table)) = &self.outlier
                && self.vector
            {
                for (channel, value) in (0u64..).zip(bytes.chunks_exact_mut(self.value)) {
                    if self.stands_out(channel, *every) {
                        table.fill(self.stream, channel, value);
                    }
                }
            }
        }
    }

    fn stands_out(&self, index: u64, every: u64) -> bool {
        self.stream.bits(u64::MAX - index).is_multiple_of(every)
    }
}

/// The bytes of one tensor, made on all threads.
///
/// Errors: a dtype that is not f32, f16, bf16 or f8_e4m3.
pub fn tensor_bytes(spec: &TensorSpec, seed: u64) -> Result<Vec<u8>> {
    let maker = Maker::new(spec, seed)?;
    let mut bytes = vec![0; spec.bytes()];
    let row = (spec.rows().1 * spec.dtype.size_in_bytes()).max(1);
    let rows = (1usize << 20).div_ceil(row);
    bytes.par_chunks_mut(rows * row).enumerate().for_each(|(i, part)| maker.fill(i * rows, part));
    Ok(bytes)
}

/// The tensors of a layout, in memory.
///
/// Errors: those of [`tensor_bytes`].
pub fn weights(label: &str, layout: &Layout, seed: u64) -> Result<WeightSet> {
    let tensors = layout.tensors.iter().map(|spec| {
        let bytes = Bytes::new(tensor_bytes(spec, seed)?);
        Stored::new(spec.name.clone(), spec.dtype, spec.shape.clone(), bytes)
    });
    Ok(WeightSet::from_tensors(label, tensors.collect::<Result<Vec<_>>>()?))
}

/// One stored tensor of standard normal values times `deviation`.
///
/// Errors: those of [`Table::new`].
pub fn stored(name: &str, dtype: DType, shape: &[usize], deviation: f32, seed: u64) -> Result<Stored> {
    let elements: usize = shape.iter().product();
    let table = Table::new(dtype, 0.0, deviation)?;
    let stream = Stream::new(seed, name);
    let mut bytes = vec![0; elements * dtype.size_in_bytes()];
    let (values, size) = (1 << 16, dtype.size_in_bytes());
    bytes
        .par_chunks_mut(values * size)
        .enumerate()
        .for_each(|(i, part)| table.fill(stream, i as u64 * draws(values), part));
    Stored::new(name, dtype, shape.to_vec(), Bytes::new(bytes))
}

/// A CPU tensor of standard normal values times `deviation`, rounded to `dtype`.
///
/// Errors: those of [`Table::new`].
pub fn normal(dtype: DType, shape: &[usize], deviation: f32, seed: u64) -> Result<Tensor> {
    let stored = stored("normal", DType::F32, shape, deviation, seed)?;
    Ok(stored.to_f32_tensor(&Device::Cpu)?.to_dtype(dtype)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_stand_out_and_parts_are_those_of_the_whole() {
        let bias =
            TensorSpec { name: "blocks.0.self_attn.k.bias".into(), dtype: DType::F32, shape: vec![5120] };
        let bytes = tensor_bytes(&bias, 1).unwrap();
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let large = values.iter().filter(|v| v.abs() > 0.5).count();
        assert!((40..=130).contains(&large), "{large} of 5120 channels, about 75 expected");

        let shape = vec![4096, 36];
        let matrix = TensorSpec { name: "blocks.0.ffn.2.weight".into(), dtype: DType::BF16, shape };
        let whole = tensor_bytes(&matrix, 1).unwrap();
        let mut part = vec![0; 72 * 3];
        Maker::new(&matrix, 1).unwrap().fill(100, &mut part);
        assert_eq!(part, whole[7200..7416]);
        let rms = |row: &[u8]| {
            let squares =
                row.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32().powi(2));
            (squares.sum::<f32>() / 36.0).sqrt()
        };
        let massive = whole.chunks(72).filter(|row| rms(row) > 0.5).count();
        assert!((10..=45).contains(&massive), "{massive} of 4096 rows, about 26 expected");
    }
}
