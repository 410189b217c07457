use super::{Format, Matrix};

/// `(x - mean) rsqrt(var + eps)`, then `* factor + summand`, each an operation of its own.
pub fn layer_norm(
    format: Format,
    x: &Matrix,
    eps: f64,
    factor: Option<&[f64]>,
    summand: Option<&[f64]>,
) -> Matrix {
    x.map_rows(|_, row| {
        let n = row.len() as f64;
        let mean = format.sum(row.iter().copied()) / n;
        let variance = format.sum(row.iter().map(|v| (v - mean).powi(2))) / n;
        let norm = |v: &f64| format.round((v - mean) / (variance + eps).sqrt());
        let scaled = row.iter().map(norm).enumerate().map(|(i, v)| match factor {
            Some(factor) => format.round(v * factor[i]),
            None => v,
        });
        scaled
            .enumerate()
            .map(|(i, v)| match summand {
                Some(summand) => format.round(v + summand[i]),
                None => v,
            })
            .collect()
    })
}

/// `x rsqrt(mean(x²) + eps)`, rounded, times `weight`.
pub fn rms_norm(format: Format, x: &Matrix, weight: &[f64], eps: f64) -> Matrix {
    x.map_rows(|_, row| {
        let mean = format.sum(row.iter().map(|v| v * v)) / row.len() as f64;
        let factor = 1.0 / (mean + eps).sqrt();
        row.iter().zip(weight).map(|(v, w)| format.round(format.round(v * factor) * w)).collect()
    })
}

/// Turns the adjacent pairs of every head; `table`: (cos, sin) pairs, a row for each row of `x`.
pub fn rope(format: Format, x: &Matrix, table: &Matrix) -> Matrix {
    x.map_rows(|index, row| {
        let angles = table.row(index);
        let mut out = Vec::with_capacity(row.len());
        for (pair, values) in row.chunks_exact(2).enumerate() {
            let at = 2 * pair % angles.len();
            let (cos, sin) = (angles[at], angles[at + 1]);
            out.push(format.round(values[0] * cos - values[1] * sin));
            out.push(format.round(values[0] * sin + values[1] * cos));
        }
        out
    })
}

/// `x / max(|x|₂, 1e-12) sqrt(C)`, times `gamma`.
pub fn channel_rms_norm(format: Format, x: &Matrix, gamma: &[f64]) -> Matrix {
    x.map_rows(|_, row| {
        let length = format.sum(row.iter().map(|v| v * v)).sqrt().max(1e-12);
        let root = (row.len() as f64).sqrt();
        let norm = |v: &f64| format.round(format.round(v / length) * root);
        row.iter().map(norm).zip(gamma).map(|(v, g)| format.round(v * g)).collect()
    })
}
