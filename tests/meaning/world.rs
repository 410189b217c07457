//! Flat shapes on quiet backgrounds, as `world.py` draws them: 81 frames, edges anti-aliased over one pixel.

use std::f32::consts::PI;

use wan_media::RgbImage;

pub const FRAMES: usize = 81;

/// Pixels of a length of 1.
pub const UNIT: f32 = 128.0;

/// Red, green, blue, yellow, purple, orange.
pub const COLOURS: [[u8; 3]; 6] =
    [[222, 45, 45], [45, 165, 75], [50, 95, 225], [240, 210, 55], [150, 65, 190], [245, 140, 35]];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Star,
}

impl Shape {
    pub const ALL: [Self; 4] = [Self::Circle, Self::Square, Self::Triangle, Self::Star];

    /// Signed distance of (x, y) from the outline, negative inside.
    fn distance(self, x: f32, y: f32, radius: f32) -> f32 {
        match self {
            Self::Circle => x.hypot(y) - radius,
            Self::Square => x.abs().max(y.abs()) - 0.82 * radius,
            Self::Triangle => {
                let side = |a: f32| x * a.sin() + y * a.cos();
                side(0.0).max(side(2.0 * PI / 3.0)).max(side(4.0 * PI / 3.0)) - 0.5 * radius
            }
            Self::Star => {
                // Folded into one tenth: the distance from the line between a tip and the notch beside it.
                let sector = 2.0 * PI / 5.0;
                let angle = ((x.atan2(-y) + sector / 2.0).rem_euclid(sector) - sector / 2.0).abs();
                let (px, py) = (x.hypot(y) * angle.sin(), x.hypot(y) * angle.cos());
                let edge = (0.45 * (sector / 2.0).sin(), 0.45 * (sector / 2.0).cos() - 1.0);
                -(px * edge.1 - (py - radius) * edge.0) / edge.0.hypot(edge.1)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Right,
    Left,
    Up,
    Down,
    Grows,
    Shrinks,
    Spins,
    Fades,
    Bounces,
    Still,
}

impl Action {
    pub const ALL: [Self; 10] = [
        Self::Right,
        Self::Left,
        Self::Up,
        Self::Down,
        Self::Grows,
        Self::Shrinks,
        Self::Spins,
        Self::Fades,
        Self::Bounces,
        Self::Still,
    ];
}

/// An object as the image shows it. Lengths are in units of [`UNIT`], y downwards, angles in radians.
#[derive(Clone, Copy, Debug)]
pub struct Thing {
    pub colour: usize,
    pub shape: Shape,
    pub x: f32,
    pub y: f32,
    pub radius: f32,
    pub angle: f32,
}

impl Thing {
    /// The object at `u` in [0, 1], the part of the clip that has passed, and its opacity.
    fn at(&self, action: Action, u: f32) -> (Self, f32) {
        let (mut thing, mut opacity) = (*self, 1.0);
        match action {
            Action::Right => thing.x += 0.32 * u,
            Action::Left => thing.x -= 0.32 * u,
            Action::Down => thing.y += 0.32 * u,
            Action::Up => thing.y -= 0.32 * u,
            Action::Grows => thing.radius *= 1.0 + 0.75 * u,
            Action::Shrinks => thing.radius *= 1.0 - 0.5 * u,
            Action::Spins => thing.angle += PI * u,
            Action::Fades => opacity -= 0.92 * u,
            Action::Bounces => thing.y -= 0.25 * (2.0 * PI * u).sin().abs(),
            Action::Still => {}
        }
        (thing, opacity)
    }

    /// Left, top, right and bottom of all that the object covers in a clip.
    pub fn reach(&self, action: Action) -> [f32; 4] {
        let places = (0..=16).map(|i| self.at(action, i as f32 / 16.0).0);
        places.fold([f32::MAX, f32::MAX, f32::MIN, f32::MIN], |[left, top, right, bottom], t| {
            let r = t.radius;
            [left.min(t.x - r), top.min(t.y - r), right.max(t.x + r), bottom.max(t.y + r)]
        })
    }

    /// How much of the pixel at (x, y) the object covers.
    fn coverage(&self, x: f32, y: f32) -> f32 {
        let (sin, cos) = self.angle.sin_cos();
        let (x, y) = (x - self.x, y - self.y);
        let d = self.shape.distance(cos * x + sin * y, cos * y - sin * x, self.radius);
        (0.5 - d * UNIT).clamp(0.0, 1.0)
    }
}

/// What is behind the objects, in brightness from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub enum Background {
    Plain { colour: [f32; 3] },
    Gradient { from: [f32; 3], to: [f32; 3], angle: f32 },
    Texture { colour: [f32; 3], phase: f32 },
}

impl Background {
    /// The colour at (x, y), each from -1 to 1 across the picture.
    fn at(&self, x: f32, y: f32) -> [f32; 3] {
        match *self {
            Self::Plain { colour } => colour,
            Self::Gradient { from, to, angle } => {
                let t = (x * angle.cos() + y * angle.sin()) * 0.35 + 0.5;
                std::array::from_fn(|c| from[c] + (to[c] - from[c]) * t)
            }
            Self::Texture { colour, phase } => {
                let waves = (7.0 * x + phase).sin() * (6.0 * y - phase).cos()
                    + 0.7 * (9.0 * (x + y) + 2.0 * phase).sin();
                colour.map(|c| c + 0.03 * waves)
            }
        }
    }
}

/// What a clip shows but for what the prompt decides.
#[derive(Clone, Debug)]
pub struct Scene {
    pub actor: Thing,
    pub bystander: Option<Thing>,
    pub background: Background,
    pub width: usize,
    pub height: usize,
}

impl Scene {
    /// Frame `frame` of [`FRAMES`] of the clip in which the actor does `action`.
    pub fn draw(&self, action: Action, frame: usize) -> RgbImage {
        let (actor, opacity) = self.actor.at(action, frame as f32 / (FRAMES - 1) as f32);
        let mut data = Vec::with_capacity(self.width * self.height * 3);
        for (row, column) in (0..self.height).flat_map(|row| (0..self.width).map(move |column| (row, column)))
        {
            let (x, y) = (column as f32 + 0.5, row as f32 + 0.5);
            let part = |at: f32, whole: usize| 2.0 * at / whole as f32 - 1.0;
            let mut pixel =
                self.background.at(part(x, self.width), part(y, self.height)).map(|c| c.clamp(0.0, 1.0));
            for (thing, opacity) in self.bystander.iter().map(|b| (b, 1.0)).chain([(&actor, opacity)]) {
                let alpha = thing.coverage(x / UNIT, y / UNIT) * opacity;
                let colour = COLOURS[thing.colour].map(|c| f32::from(c) / 255.0);
                pixel = std::array::from_fn(|c| pixel[c] * (1.0 - alpha) + colour[c] * alpha);
            }
            data.extend(pixel.map(|c| (c * 255.0).round() as u8));
        }
        RgbImage::new(self.width as u32, self.height as u32, data).expect("as many bytes as pixels")
    }

    /// The picture that is given.
    pub fn image(&self) -> RgbImage {
        self.draw(Action::Still, 0)
    }
}
