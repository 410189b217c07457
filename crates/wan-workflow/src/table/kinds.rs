//! What the table says about a node.

/// A class of nodes.
#[derive(Debug)]
pub struct NodeClass {
    /// Name in graphs.
    pub name: &'static str,
    /// Name on the screen.
    pub display_name: &'static str,
    /// Menu in which front ends list it.
    pub category: &'static str,
    /// ComfyUI's Python module: front ends tell by it where a node comes from.
    pub python_module: &'static str,
    /// Inputs in order, required ones first: saved workflows tell values apart by their position.
    pub inputs: &'static [Input],
    /// Names and types that ComfyUI fills in itself.
    pub hidden: &'static [(&'static str, &'static str)],
    /// What it makes.
    pub outputs: &'static [Output],
    /// Whether jobs end in it.
    pub output_node: bool,
    /// What a graph with it should know, for the user guide.
    pub note: &'static str,
}

impl NodeClass {
    /// Most classes: no hidden inputs, no output node.
    pub(super) const fn new(name: &'static str, display_name: &'static str, place: Place) -> Self {
        Self {
            name,
            display_name,
            category: place.category,
            python_module: place.python_module,
            inputs: &[],
            hidden: &[],
            outputs: &[],
            output_node: false,
            note: "",
        }
    }

    pub(super) const fn inputs(mut self, inputs: &'static [Input]) -> Self {
        self.inputs = inputs;
        self
    }

    pub(super) const fn outputs(mut self, outputs: &'static [Output]) -> Self {
        self.outputs = outputs;
        self
    }

    pub(super) const fn ends_jobs(mut self, hidden: &'static [(&'static str, &'static str)]) -> Self {
        (self.output_node, self.hidden) = (true, hidden);
        self
    }

    pub(super) const fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }

    /// The input of this name, or with this alias.
    pub fn input(&self, name: &str) -> Option<&'static Input> {
        self.inputs.iter().find(|input| input.name == name || input.aliases.contains(&name))
    }
}

/// Where a class comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub category: &'static str,
    pub python_module: &'static str,
}

/// Something that a node makes.
#[derive(Debug)]
pub struct Output {
    /// Type of links from it.
    pub type_name: &'static str,
    /// Name on the screen.
    pub name: &'static str,
}

pub(super) const fn output(type_name: &'static str, name: &'static str) -> Output {
    Output { type_name, name }
}

/// Something that a node takes.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// Name in graphs.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether a graph must give it.
    pub required: bool,
    /// What becomes of it.
    pub support: Support,
    /// Shown by front ends.
    pub tooltip: &'static str,
    /// Names that other versions of the node give it.
    pub aliases: &'static [&'static str],
    /// Whether `/object_info` declares it. The others are values that a node takes beside those it declares.
    pub declared: bool,
    /// Whether saved workflows have one value more after it: `fixed`, `randomize`, ...
    pub seed_control: bool,
}

/// What an input may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A link to an output of this type, or of one of these types, separated by commas.
    Link(&'static str),
    /// `INT`.
    Int {
        /// Where none is given.
        default: i64,
        /// Smallest.
        min: i64,
        /// Largest, as front ends are told and as validation holds it to; seeds reach to 2^64 - 1.
        max: Option<u64>,
        /// Of the front end's arrows; not enforced.
        step: u32,
    },
    /// `FLOAT`.
    Float {
        /// Where none is given.
        default: f64,
        /// Smallest.
        min: f64,
        /// Largest.
        max: Option<f64>,
        /// Of the front end's arrows; not enforced.
        step: f64,
    },
    /// `BOOLEAN` with its default.
    Bool(bool),
    /// `STRING`.
    Text {
        /// Where none is given.
        default: &'static str,
        /// Whether front ends show a box of several lines.
        multiline: bool,
    },
    /// One of these; the default comes first unless it is named.
    Choice {
        /// The list.
        options: &'static [&'static str],
        /// Where none is given.
        default: &'static str,
    },
    /// The name of a model file in one of these folders.
    Model(&'static [ModelFolder]),
    /// The name of an image in the input folder.
    Image,
}

impl Kind {
    /// Whether saved workflows have a value for it.
    pub fn is_widget(&self) -> bool {
        !matches!(self, Self::Link(_))
    }

    /// ComfyUI's name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Link(name) => name,
            Self::Int { .. } => "INT",
            Self::Float { .. } => "FLOAT",
            Self::Bool(_) => "BOOLEAN",
            Self::Text { .. } => "STRING",
            Self::Choice { .. } | Self::Model(_) | Self::Image => "COMBO",
        }
    }
}

/// What becomes of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It has the effect that it has in ComfyUI.
    Used,
    /// It is accepted and without effect, for this reason.
    Ignored(&'static str),
    /// Only its default is accepted, or for a link none; for this reason.
    Refused(&'static str),
}

/// ComfyUI's folders of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ModelFolder {
    /// Diffusion transformers.
    DiffusionModels,
    /// VAEs.
    Vae,
    /// Text encoders.
    TextEncoders,
    /// Image encoders.
    ClipVision,
    /// LoRAs.
    Loras,
}

impl ModelFolder {
    /// All folders.
    pub const ALL: [Self; 5] =
        [Self::DiffusionModels, Self::Vae, Self::TextEncoders, Self::ClipVision, Self::Loras];

    /// Its name below ComfyUI's `models`, and in `/models/{folder}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DiffusionModels => "diffusion_models",
            Self::Vae => "vae",
            Self::TextEncoders => "text_encoders",
            Self::ClipVision => "clip_vision",
            Self::Loras => "loras",
        }
    }

    /// The folder of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|folder| folder.name() == name)
    }
}

const fn input(name: &'static str, kind: Kind) -> Input {
    Input {
        name,
        kind,
        required: true,
        support: Support::Used,
        tooltip: "",
        aliases: &[],
        declared: true,
        seed_control: false,
    }
}

pub(super) const fn link(name: &'static str, type_name: &'static str) -> Input {
    input(name, Kind::Link(type_name))
}

pub(super) const fn int(name: &'static str, default: i64, min: i64, max: u64) -> Input {
    input(name, Kind::Int { default, min, max: Some(max), step: 1 })
}

pub(super) const fn seed(name: &'static str) -> Input {
    Input {
        seed_control: true,
        tooltip: "random numbers of the initial noise; the low 32 bits count",
        ..int(name, 0, 0, u64::MAX)
    }
}

pub(super) const fn float(name: &'static str, default: f64, min: f64, max: f64) -> Input {
    input(name, Kind::Float { default, min, max: Some(max), step: 0.01 })
}

pub(super) const fn boolean(name: &'static str, default: bool) -> Input {
    input(name, Kind::Bool(default))
}

pub(super) const fn text(name: &'static str, default: &'static str) -> Input {
    input(name, Kind::Text { default, multiline: false })
}

pub(super) const fn prompt(name: &'static str) -> Input {
    input(name, Kind::Text { default: "", multiline: true })
}

pub(super) const fn choice(
    name: &'static str,
    options: &'static [&'static str],
    default: &'static str,
) -> Input {
    input(name, Kind::Choice { options, default })
}

pub(super) const fn model(name: &'static str, folders: &'static [ModelFolder]) -> Input {
    input(name, Kind::Model(folders))
}

pub(super) const fn image(name: &'static str) -> Input {
    input(name, Kind::Image)
}

impl Input {
    pub(super) const fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    pub(super) const fn ignored(mut self, reason: &'static str) -> Self {
        self.support = Support::Ignored(reason);
        self
    }

    pub(super) const fn refused(mut self, reason: &'static str) -> Self {
        self.support = Support::Refused(reason);
        self
    }

    pub(super) const fn tip(mut self, tooltip: &'static str) -> Self {
        self.tooltip = tooltip;
        self
    }

    pub(super) const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Taken beside the declared inputs, as a video format's own values are.
    pub(super) const fn undeclared(mut self) -> Self {
        (self.declared, self.required) = (false, false);
        self
    }

    pub(super) const fn steps_of(mut self, by: u32) -> Self {
        if let Kind::Int { step, .. } = &mut self.kind {
            *step = by;
        }
        self
    }
}
