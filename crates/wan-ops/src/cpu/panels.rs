use super::tile::{COLUMN, MAX_WIDTH};

/// One panel of a right operand: `columns` columns from `start`, padded to `width`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panel {
    /// First column.
    pub start: usize,
    /// Columns that exist.
    pub columns: usize,
    /// Columns stored: a multiple of 16, at most 64.
    pub width: usize,
}

/// Cuts `n` columns into the fewest panels, as even as possible. `start` counts padded columns too, which it may
/// since only the last panel is padded: the packed panels of depth `k` lie at `start k`.
pub(crate) fn panels(n: usize) -> impl Iterator<Item = Panel> + Clone {
    let units = n.div_ceil(COLUMN);
    let count = n.div_ceil(MAX_WIDTH).max(1);
    (0..count).filter_map(move |i| {
        let (from, to) = (i * units / count * COLUMN, (i + 1) * units / count * COLUMN);
        (to > from).then(|| Panel { start: from, columns: to.min(n) - from, width: to - from })
    })
}

/// `n` rounded up to what packed panels hold.
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(COLUMN)
}

/// Packs the columns of a matrix stored by columns: `source[column ld ..][..k]` to `out[k, width]`.
pub(crate) fn pack_transposed(
    source: &[f32],
    ld: usize,
    columns: usize,
    k: usize,
    width: usize,
    out: &mut [f32],
) {
    // By 16 values of k, so that a line of each column is used whole while it is in the cache.
    const STEP: usize = 16;
    for from in (0..k).step_by(STEP) {
        let to = k.min(from + STEP);
        let out = &mut out[from * width..to * width];
        for column in 0..width {
            if column < columns {
                let source = &source[column * ld + from..column * ld + to];
                for (row, value) in out.chunks_exact_mut(width).zip(source) {
                    row[column] = *value;
                }
            } else {
                out.chunks_exact_mut(width).for_each(|row| row[column] = 0.0);
            }
        }
    }
}

/// Packs the columns `start..start + columns` of a matrix stored by rows, `source[row ld ..]`, to `out[k, width]`.
pub(crate) fn pack_rows(source: &[f32], ld: usize, panel: Panel, out: &mut [f32]) {
    for (i, row) in out.chunks_exact_mut(panel.width).enumerate() {
        let (kept, padding) = row.split_at_mut(panel.columns);
        kept.copy_from_slice(&source[i * ld + panel.start..][..panel.columns]);
        padding.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_every_column_once_and_evenly() {
        for n in 1..500 {
            let cut: Vec<Panel> = panels(n).collect();
            assert_eq!(cut.len(), n.div_ceil(MAX_WIDTH));
            let mut next = 0;
            for p in &cut {
                assert_eq!(p.start, next, "n = {n}");
                assert!(p.width % COLUMN == 0 && p.width <= MAX_WIDTH && p.columns <= p.width);
                next = p.start + p.columns;
            }
            assert_eq!(next, n);
        }
        let widths = |n| panels(n).map(|p| p.width).collect::<Vec<_>>();
        assert_eq!(widths(96), [48, 48]);
        assert_eq!(widths(128), [64, 64]);
        assert_eq!(widths(3), [16]);
    }
}
