use super::activation::Function;
use super::rows::GROUP;
use crate::launch::{args, by_float};
use crate::{DevPtr, Float, Launch};

/// Most channels that [`channel_norm`] takes: 32 lanes with 4 groups each.
pub const MOST_CHANNELS: usize = 32 * 4 * GROUP;

/// `y = function(x / max(|x|₂, 1e-12) sqrt(channels) gamma)` over the channels of each voxel: `x` and `y`
/// `[voxels, channels]` of `float`, `gamma` `[channels]` f32, arithmetic f32. `y` may be `x`.
///
/// # Panics
/// For more than [`MOST_CHANNELS`].
pub fn channel_norm(
    float: Float,
    [x, gamma, y]: [DevPtr; 3],
    voxels: usize,
    channels: usize,
    function: Function,
) -> Launch {
    const THREADS: usize = 256;
    assert!(channels <= MOST_CHANNELS, "{channels} channels, expected at most {MOST_CHANNELS}");
    let lanes = channels.div_ceil(GROUP).next_power_of_two().min(32);
    let args = args![x, gamma, y, voxels as i64, channels as i32, lanes as i32, function as i32];
    Launch::new(by_float!(float, "channel_norm"), (voxels * lanes).div_ceil(THREADS), THREADS as u32, args)
}
