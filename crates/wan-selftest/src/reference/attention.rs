use super::{Format, Matrix};

/// Arguments of an attention over several heads, whose channels lie behind each other in a row.
#[derive(Debug, Clone)]
pub struct AttentionInputs {
    /// `[queries, heads * D]`.
    pub q: Matrix,
    /// `[keys, heads * D]`.
    pub k: Matrix,
    /// `[keys, heads * D]`.
    pub v: Matrix,
    /// `[heads * queries, keys]`, added to the scores.
    pub bias: Option<Matrix>,
    /// Heads.
    pub heads: usize,
    /// Factor of the scores.
    pub scale: f64,
}

/// `softmax(scale q kᵀ + bias) v` for each query and head: `[queries, heads * D]`.
pub fn attention(format: Format, inputs: &AttentionInputs) -> Matrix {
    let AttentionInputs { q, k, v, bias, heads, scale } = inputs;
    let d = q.columns / heads;
    q.map_rows(|query, row| {
        let mut output = Vec::with_capacity(q.columns);
        for head in 0..*heads {
            let part = head * d..(head + 1) * d;
            let mut scores: Vec<f64> = (0..k.rows())
                .map(|key| {
                    let pairs =
                        row[part.clone()].iter().copied().zip(k.row(key)[part.clone()].iter().copied());
                    format.round(format.dot(pairs) * scale)
                })
                .collect();
            if let Some(bias) = bias {
                for (score, b) in scores.iter_mut().zip(bias.row(head * q.rows() + query)) {
                    *score = format.round(*score + b);
                }
            }
            let weights = softmax(format, &scores);
            let mut sums = vec![0f64; d];
            for (key, weight) in weights.iter().enumerate() {
                for (sum, value) in sums.iter_mut().zip(&v.row(key)[part.clone()]) {
                    *sum = format.accumulate(*sum, *weight, *value);
                }
            }
            output.extend(sums.into_iter().map(|sum| format.round(sum)));
        }
        output
    })
}

fn softmax(format: Format, scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
    let sum = format.sum(weights.iter().copied());
    weights.into_iter().map(|w| format.round(w / sum)).collect()
}
