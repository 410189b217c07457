//! Whether a video shows what its sentence says, told from pixels alone: the rules of `measure.py`.
//!
//! The actor is found by its colour. Place, size and strength of what is found, over time, decide.

use wan_media::RgbImage;

use super::world::{Action, COLOURS};

/// Distance in RGB (each 0 to 1) at which a pixel no longer counts as the colour.
const REACH: f32 = 0.30;

/// Motion in units of the shorter side, y downwards; `size` and `strength` are ratios of the last frames to the first.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    pub dx: f32,
    pub dy: f32,
    pub rise: f32,
    pub size: f32,
    pub strength: f32,
    pub change: f32,
}

/// What is seen of a colour in one frame.
struct Seen {
    presence: Vec<f32>,
    mass: f32,
    x: f32,
    y: f32,
    strength: f32,
}

impl Seen {
    fn of(frame: &RgbImage, colour: usize) -> Self {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let presence: Vec<f32> =
            frame.data().as_chunks::<3>().0.iter().map(|pixel| nearness(*pixel, COLOURS[colour])).collect();
        let mass = presence.iter().sum::<f32>().max(1e-3);
        let scale = 1.0 / (mass * width.min(height) as f32);
        let centre = |along: &dyn Fn(usize) -> usize| {
            presence.iter().enumerate().map(|(i, p)| p * (along(i) as f32 + 0.5)).sum::<f32>() * scale
        };
        let (x, y) = (centre(&|i| i % width), centre(&|i| i / width));
        let mut strongest = presence.clone();
        strongest.sort_unstable_by(|a, b| b.total_cmp(a));
        strongest.truncate((width * height / 800).max(8));
        let strength = mean(strongest.iter().copied());
        Self { presence, mass, x, y, strength }
    }
}

/// How close a pixel is to a colour, from 0 to 1.
fn nearness(pixel: [u8; 3], colour: [u8; 3]) -> f32 {
    let square = |i: usize| ((f32::from(pixel[i]) - f32::from(colour[i])) / 255.0).powi(2);
    (1.0 - (square(0) + square(1) + square(2)).sqrt() / REACH).clamp(0.0, 1.0)
}

impl Features {
    /// Those of the object of [`COLOURS`]`[colour]` in a video of at least 8 frames.
    pub fn of(video: &[RgbImage], colour: usize) -> Self {
        let seen: Vec<Seen> = video.iter().map(|frame| Seen::of(frame, colour)).collect();
        let (first, head, tail) = (&seen[0], &seen[..3], &seen[seen.len() - 3..]);
        let last = seen.iter().rposition(|s| s.strength > 0.3).unwrap_or(0);
        let top = seen[..=last].iter().map(|s| s.y).fold(f32::INFINITY, f32::min);
        let strength = |part: &[Seen]| mean(part.iter().map(|s| s.strength));
        let mass = |part: &[Seen]| mean(part.iter().map(|s| s.mass));
        Self {
            dx: seen[last].x - first.x,
            dy: seen[last].y - first.y,
            rise: first.y - top,
            size: mass(tail) / mass(head),
            strength: strength(tail) / strength(head).max(1e-3),
            change: change(&seen),
        }
    }
}

/// Change over an eighth of the clip, of what was there: turning changes the outline, standing does not.
fn change(seen: &[Seen]) -> f32 {
    let lag = seen.len() / 8;
    let mut changes: Vec<f32> =
        seen.iter().zip(&seen[lag..]).map(|(then, now)| difference(then, now)).collect();
    changes.sort_unstable_by(f32::total_cmp);
    changes[(changes.len() - 1) / 2]
}

fn difference(then: &Seen, now: &Seen) -> f32 {
    then.presence.iter().zip(&now.presence).map(|(a, b)| (a - b).abs()).sum::<f32>() / then.mass
}

fn mean(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = values.len() as f32;
    values.sum::<f32>() / count
}

/// Whether features `f` are those of `action`.
pub fn obeys(f: &Features, action: Action) -> bool {
    let stays = f.dx.abs() < 0.08 && f.dy.abs() < 0.08;
    let same_size = f.size > 0.7 && f.size < 1.4;
    match action {
        Action::Right => f.dx > 0.12 && f.dy.abs() < 0.08,
        Action::Left => f.dx < -0.12 && f.dy.abs() < 0.08,
        Action::Down => f.dy > 0.12 && f.dx.abs() < 0.08,
        Action::Up => f.dy < -0.12 && f.dx.abs() < 0.08,
        Action::Grows => stays && f.size > 1.4,
        Action::Shrinks => stays && f.size < 0.7 && f.strength > 0.6,
        Action::Fades => stays && f.strength < 0.6,
        Action::Bounces => f.rise > 0.10 && stays && same_size,
        Action::Spins => stays && f.rise < 0.10 && same_size && f.change > 0.12,
        Action::Still => stays && f.rise < 0.06 && same_size && f.change < 0.12,
    }
}
