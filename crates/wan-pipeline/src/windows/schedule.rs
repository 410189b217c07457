//! Which frames each window has. Held against the reference's lists by tests.

/// Windows one after the other, `overlap` in common; the last one ends with the video.
pub(super) fn static_standard(frames: usize, size: usize, overlap: usize) -> Vec<Vec<usize>> {
    let mut windows = Vec::new();
    let mut start = 0;
    while start + size < frames {
        windows.push((start..start + size).collect());
        start += size - overlap;
    }
    windows.push((frames - size..frames).collect());
    windows
}

/// Windows whose place depends on the step. One that runs over the end is moved back to it, and what it would have
/// covered at the start gets a window of its own.
pub(super) fn uniform_standard(
    step: usize,
    frames: usize,
    size: usize,
    strides: usize,
    overlap: usize,
) -> Vec<Vec<usize>> {
    let mut windows = rolling(step, frames, size, strides, overlap);
    let mut index = 0;
    while index < windows.len() {
        if let Some(start) = roll_over(&windows[index]) {
            move_to_end(&mut windows[index], frames);
            let next = (index + 1) % windows.len();
            if !windows[next].contains(&start) {
                windows.insert(index + 1, (start..start + size).collect());
            }
        }
        index += 1;
    }
    // A window that is wider than the video cannot be moved into it; the reference fails there.
    windows.retain(|window| window.iter().all(|frame| *frame < frames));
    let mut unique: Vec<Vec<usize>> = Vec::new();
    for window in windows {
        if !unique.contains(&window) {
            unique.push(window);
        }
    }
    // Nor may a frame be left out, which happens to the reference with few and long windows.
    while let Some(frame) = (0..frames).find(|frame| !unique.iter().flatten().any(|f| f == frame)) {
        let start = frame.min(frames - size);
        unique.push((start..start + size).collect());
    }
    unique
}

/// Windows around a video that is taken for a ring, for each distance of frames.
fn rolling(step: usize, frames: usize, size: usize, strides: usize, overlap: usize) -> Vec<Vec<usize>> {
    let fraction = halving(step);
    // As many doublings as the video is long in windows, and one.
    let most = (frames as f64 / size as f64).log2().ceil() as usize + 1;
    let pad = (frames as f64 * fraction).round_ties_even() as usize;
    let mut windows = Vec::new();
    for power in 0..strides.min(most) {
        let distance = 1usize << power;
        let mut start = (fraction * distance as f64) as usize + pad;
        while start < frames + pad {
            windows.push((0..size).map(|i| (start + i * distance) % frames).collect());
            start += size * distance - overlap;
        }
    }
    windows
}

/// The step's bits behind the point, in reverse: 0, 1/2, 1/4, 3/4, 1/8, ... so that places of few steps lie apart.
fn halving(step: usize) -> f64 {
    (step as u64).reverse_bits() as f64 / 2f64.powi(64)
}

/// The first frame after the one with which a window runs over the end, if it does.
fn roll_over(window: &[usize]) -> Option<usize> {
    window.windows(2).find(|pair| pair[1] < pair[0]).map(|pair| pair[1])
}

/// Moves a window so that its last frame is the video's.
fn move_to_end(window: &mut [usize], frames: usize) {
    let (Some(&first), Some(&last)) = (window.first(), window.last()) else { return };
    let from_first = |frame: usize| (frame + frames - first) % frames;
    let shift = frames - 1 - from_first(last);
    for frame in window {
        *frame = from_first(*frame) + shift;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ContextWindows, WindowSchedule};
    use super::*;

    /// Lists made by the reference's own functions: `tests/golden/windows/schedule.json`.
    #[test]
    fn windows_are_those_of_the_reference() {
        let path = wan_core::testkit::repo_path("tests/golden/windows/schedule.json");
        let cases: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() > 50);
        for case in cases {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let options = ContextWindows {
                schedule: case["schedule"].as_str().unwrap().parse().unwrap(),
                frames: number("context_frames"),
                stride: number("context_stride"),
                overlap: number("context_overlap"),
                freenoise: false,
            };
            options.check().unwrap();
            let expected: Vec<Vec<usize>> = serde_json::from_value(case["windows"].clone()).unwrap();
            assert_eq!(options.of_step(number("step"), number("latent_frames")), expected, "{case}");
        }
    }

    #[test]
    fn every_frame_is_in_a_window_and_all_windows_are_equally_long() {
        for schedule in WindowSchedule::ALL {
            for frames in 2..90 {
                for (window, stride, overlap) in
                    [(81, 4, 16), (33, 4, 4), (49, 8, 32), (17, 16, 8), (5, 100, 4)]
                {
                    let options =
                        ContextWindows { schedule, frames: window, stride, overlap, freenoise: false };
                    for step in 0..9 {
                        let windows = options.of_step(step, frames);
                        let length = options.latent_frames().min(frames);
                        assert!(windows.iter().all(|w| w.len() == length));
                        assert!(windows.iter().flatten().all(|f| *f < frames), "{options:?} {frames} {step}");
                        let missing = (0..frames).find(|f| !windows.iter().any(|w| w.contains(f)));
                        assert_eq!(missing, None, "{options:?} {frames} {step}");
                    }
                }
            }
        }
    }

    #[test]
    fn steps_begin_in_places_that_lie_apart() {
        assert_eq!([0, 1, 2, 3, 4].map(halving), [0.0, 0.5, 0.25, 0.75, 0.125]);
    }
}
