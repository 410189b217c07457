use wan_core::geometry::{TEMPORAL_FACTOR, TOKEN_PIXELS, floor_pixels};
use wan_vae::Tiling;

use super::{Budget, JobShape, MemoryPlan, ModelSizes, Processor};
use crate::{BlocksToSwap, Result, TilingChoice};

/// Smaller tiles to try, (tile, stride) in pixels, with at least the default's share of overlap in pixels for blending.
const SMALLER_TILES: [(usize, usize); 3] = [(192, 128), (128, 96), (96, 64)];

/// Sizes to try, as parts of this many of the one asked for.
const SIZE_PARTS: usize = 32;

/// Options that make `job` fit into `budget`, as parts of a command line: those that leave the video as it is, else the
/// most frames, and the largest size, that fit. Empty if nothing does.
pub(super) fn nearest(sizes: &ModelSizes, job: &JobShape, budget: Budget) -> Result<Vec<String>> {
    let fits = |job: &JobShape| -> Result<bool> { Ok(MemoryPlan::of_job(sizes, job, budget)?.fits()) };
    let (freed, options) = free_choices(job, budget);
    if fits(&freed)? {
        return Ok(vec![options.join(" ")]);
    }
    for (tile, stride) in SMALLER_TILES {
        let small =
            Tiling { tile_height: tile, tile_width: tile, stride_height: stride, stride_width: stride };
        if small.tile_height >= freed.tile.tile_height {
            continue;
        }
        let tiled = JobShape { tiling: TilingChoice::On, tile: small, ..freed.clone() };
        if fits(&tiled)? {
            let mut options = without(&options, "--vae-tiling");
            options.push(format!(
                "--vae-tiling on --tile-height {tile} --tile-width {tile} --tile-stride-height {stride} --tile-stride-width {stride}"
            ));
            return Ok(vec![options.join(" ")]);
        }
    }
    if !freed.is_free() {
        return Ok(Vec::new());
    }
    let line = |more: String| options.iter().cloned().chain([more]).collect::<Vec<_>>().join(" ");
    let mut lines = Vec::new();
    if let Some(fewer) = most_frames(&freed, &fits)? {
        lines.push(line(format!("--frames {}", fewer.frames)));
    }
    if let Some(smaller) = largest_size(&freed, &fits)? {
        lines.push(line(size_options(&smaller)));
    }
    if lines.is_empty() {
        // Both at once: the largest size at which any number of frames fits.
        let one = JobShape { frames: 1, ..freed.clone() };
        if let Some(smaller) = largest_size(&one, &fits)? {
            let whole = JobShape { frames: freed.frames, ..smaller };
            let both = most_frames(&whole, &fits)?.unwrap_or(JobShape { frames: 1, ..whole });
            lines.push(line(format!("{} --frames {}", size_options(&both), both.frames)));
        }
    }
    Ok(lines)
}

/// The job with every choice that does not change the video left to the plan, and the options that say so.
fn free_choices(job: &JobShape, budget: Budget) -> (JobShape, Vec<String>) {
    let mut options = Vec::new();
    let mut freed = job.clone();
    if budget.processor == Processor::Gpu && job.blocks_to_swap != BlocksToSwap::Auto {
        freed.blocks_to_swap = BlocksToSwap::Auto;
        options.push("--blocks-to-swap auto".to_string());
    }
    if job.tiling != TilingChoice::Auto {
        freed.tiling = TilingChoice::Auto;
        options.push("--vae-tiling auto".to_string());
    }
    (freed, options)
}

fn without(options: &[String], start: &str) -> Vec<String> {
    options.iter().filter(|o| !o.starts_with(start)).cloned().collect()
}

fn size_options(job: &JobShape) -> String {
    format!("--width {} --height {}", job.asked.0, job.asked.1)
}

/// The job with the most frames, fewer than it has, that fits.
fn most_frames(job: &JobShape, fits: &impl Fn(&JobShape) -> Result<bool>) -> Result<Option<JobShape>> {
    let mut frames = job.frames;
    while frames > TEMPORAL_FACTOR {
        frames -= TEMPORAL_FACTOR;
        let fewer = JobShape { frames, ..job.clone() };
        if fits(&fewer)? {
            return Ok(Some(fewer));
        }
    }
    Ok(None)
}

/// The job in the largest size of its shape, smaller than its own, that fits.
fn largest_size(job: &JobShape, fits: &impl Fn(&JobShape) -> Result<bool>) -> Result<Option<JobShape>> {
    for part in (1..SIZE_PARTS).rev() {
        let side = |pixels: usize| floor_pixels(pixels * part / SIZE_PARTS).max(TOKEN_PIXELS);
        let asked = (side(job.asked.0), side(job.asked.1));
        if let Some(smaller) = job.with_size(asked).filter(|j| j.width * j.height < job.width * job.height)
            && fits(&smaller)?
        {
            return Ok(Some(smaller));
        }
    }
    Ok(None)
}
