//! Image and prompt pairs that no training has seen: pictures drawn here, and every other prompt about a combination of
//! colour, shape and action that training leaves out (`held_out` in `world.py`).

use std::f32::consts::PI;

use super::world::{Action, Background, COLOURS, Scene, Shape, Thing};

const ENGLISH: [&str; 6] = ["red", "green", "blue", "yellow", "purple", "orange"];
const CHINESE: [&str; 6] = ["红色", "绿色", "蓝色", "黄色", "紫色", "橙色"];
const MARGIN: f32 = 0.02;

/// An image, and what its prompt asks of the actor.
#[derive(Clone, Debug)]
pub struct Pair {
    pub scene: Scene,
    pub action: Action,
    pub prompt: String,
}

/// The first `count` pairs, an even number. Two after each other share an image; the prompts take turns in language.
pub fn pairs(count: usize) -> Vec<Pair> {
    let mut random = Random(2025);
    // Every combination of colour and shape whose left-out action can be seen, round and round.
    let held = (0..).map(|i| (i % COLOURS.len(), Shape::ALL[(i / 2) % 4]));
    let held = held.map(|(colour, shape)| (colour, shape, left_out(colour, shape)));
    let images = held.filter(|&(_, shape, action)| visible(shape, action)).take(count / 2).enumerate();
    images
        .flat_map(|(i, (colour, shape, action))| {
            let other = another(&mut random, shape, action);
            let scene = scene(&mut random, colour, shape, [action, other]);
            [action, other].into_iter().enumerate().map(move |(nth, action)| Pair {
                prompt: sentence(&scene.actor, action, i + nth),
                scene: scene.clone(),
                action,
            })
        })
        .collect()
}

/// The action that no training clip shows of such an object.
fn left_out(colour: usize, shape: Shape) -> Action {
    let place = Shape::ALL.iter().position(|s| *s == shape).expect("one of all");
    // `world.py` leaves out colour + 3 shape + 7 action = 0 modulo 10, its actions in the order of `ALL`.
    let index = (0..10).find(|action| (colour + 3 * place + 7 * action).is_multiple_of(10));
    Action::ALL[index.expect("7 has an inverse modulo 10")]
}

/// Whether the action can be seen of the shape: nobody sees a circle spin.
fn visible(shape: Shape, action: Action) -> bool {
    shape != Shape::Circle || action != Action::Spins
}

fn another(random: &mut Random, shape: Shape, not: Action) -> Action {
    loop {
        let action = Action::ALL[random.below(Action::ALL.len())];
        if action != not && visible(shape, action) {
            return action;
        }
    }
}

/// A scene with room for both actions; two in five have a bystander of another colour.
fn scene(random: &mut Random, colour: usize, shape: Shape, actions: [Action; 2]) -> Scene {
    let (width, height) = (128, 128);
    let object = |random: &mut Random, colour, shape, low, high| Thing {
        colour,
        shape,
        x: 0.0,
        y: 0.0,
        radius: random.between(low, high),
        angle: random.between(-PI, PI),
    };
    let actor = loop {
        let actor = object(random, colour, shape, 0.10, 0.16);
        if let Some(actor) = placed(random, actor, &actions) {
            break actor;
        }
    };
    let stranger = (colour + 1 + random.below(COLOURS.len() - 1)) % COLOURS.len();
    let wanted = random.below(5) < 2;
    let bystander = (0..12)
        .filter_map(|_| {
            let shape = Shape::ALL[random.below(4)];
            let thing = object(random, stranger, shape, 0.08, 0.14);
            placed(random, thing, &[Action::Still])
        })
        .find(|thing| wanted && actions.iter().all(|&action| apart(&actor, action, thing)));
    Scene { actor, bystander, background: background(random), width, height }
}

/// `thing` where all that it covers in any of `actions` is inside the picture.
fn placed(random: &mut Random, thing: Thing, actions: &[Action]) -> Option<Thing> {
    let reach = actions.iter().map(|&action| thing.reach(action));
    let [left, top, right, bottom] =
        reach.fold([0.0_f32; 4], |a, b| [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]);
    let (low_x, high_x) = (MARGIN - left, 1.0 - MARGIN - right);
    let (low_y, high_y) = (MARGIN - top, 1.0 - MARGIN - bottom);
    (low_x <= high_x && low_y <= high_y).then(|| Thing {
        x: random.between(low_x, high_x),
        y: random.between(low_y, high_y),
        ..thing
    })
}

/// Whether the two never touch.
fn apart(actor: &Thing, action: Action, other: &Thing) -> bool {
    let [left, top, right, bottom] = actor.reach(action);
    let [l, t, r, b] = other.reach(Action::Still);
    right < l || r < left || bottom < t || b < top
}

/// Muted colours, so that no background is taken for an object.
fn background(random: &mut Random) -> Background {
    let grey = random.between(0.15, 0.9);
    let mut tint = |spread: f32| -> [f32; 3] {
        std::array::from_fn(|_| {
            (grey + random.between(-0.06, 0.06)).clamp(0.0, 1.0) + random.between(-spread, spread)
        })
    };
    let (from, to) = (tint(0.0), tint(0.12));
    match random.below(3) {
        0 => Background::Plain { colour: from },
        1 => Background::Gradient { from, to, angle: random.between(0.0, 2.0 * PI) },
        _ => Background::Texture { colour: from, phase: random.between(0.0, 2.0 * PI) },
    }
}

/// What `actor` shall do, in English for even `form`, else in Chinese.
fn sentence(actor: &Thing, action: Action, form: usize) -> String {
    let (english, chinese) = said(action);
    let shape = Shape::ALL.iter().position(|s| *s == actor.shape).expect("one of all");
    if form.is_multiple_of(2) {
        let shape = ["circle", "square", "triangle", "star"][shape];
        return format!("the {} {shape} {}", ENGLISH[actor.colour], english[form / 2 % english.len()]);
    }
    let shape = ["圆形", "方形", "三角形", "星形"][shape];
    format!("{}{shape}{}", CHINESE[actor.colour], chinese[form / 2 % chinese.len()])
}

/// How one says so after "the red circle" or 红色圆形.
fn said(action: Action) -> ([&'static str; 3], [&'static str; 3]) {
    match action {
        Action::Right => {
            (["moves right", "moves to the right", "slides right"], ["向右移动", "往右移动", "向右滑动"])
        }
        Action::Left => {
            (["moves left", "moves to the left", "slides left"], ["向左移动", "往左移动", "向左滑动"])
        }
        Action::Up => (["moves up", "rises", "moves upwards"], ["向上移动", "往上移动", "上升"]),
        Action::Down => (["moves down", "sinks", "moves downwards"], ["向下移动", "往下移动", "下降"]),
        Action::Grows => (["grows", "gets bigger", "becomes larger"], ["变大", "逐渐变大", "越来越大"]),
        Action::Shrinks => (["shrinks", "gets smaller", "becomes smaller"], ["变小", "逐渐变小", "越来越小"]),
        Action::Spins => (["spins", "rotates", "turns around"], ["旋转", "转动", "不停旋转"]),
        Action::Fades => (["fades away", "fades", "slowly disappears"], ["淡出", "逐渐消失", "慢慢变透明"]),
        Action::Bounces => {
            (["bounces", "bounces up and down", "jumps up and down"], ["弹跳", "上下弹跳", "跳动"])
        }
        Action::Still => {
            (["stays still", "does not move", "stands motionless"], ["保持静止", "不动", "原地不动"])
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.next() >> 40) as f32 / (1 << 24) as f32
    }
}
