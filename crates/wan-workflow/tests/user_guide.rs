//! The user guide's table of nodes is made from the table in the program. `UPDATE_DOCS=1` writes it anew.

use std::path::Path;

use wan_workflow::table::{Input, Kind, NodeClass, Support, classes};

const BEGIN: &str = "<!-- nodes: made from the node table -->";

#[test]
fn the_user_guide_lists_every_node_and_input() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/coming-from-comfyui.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (prose, listed) = text.split_once(BEGIN).expect("the marker");
    let expected = format!("\n\n{}\n{}", legend(), classes().map(section).collect::<Vec<_>>().join("\n"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{prose}{BEGIN}{expected}")).unwrap();
        return;
    }
    assert_eq!(listed, expected, "run UPDATE_DOCS=1 cargo test -p wan-workflow --test user_guide");
}

/// Reasons that many inputs share, by their first words, and what stands for them.
const MARKS: [(&str, &str); 3] = [
    ("memory is managed by the engine", "memory"),
    ("there is no graph compiler", "compiler"),
    ("weights are used in the precision", "precision"),
];

fn mark(reason: &str) -> Option<&'static str> {
    MARKS.iter().find(|(begin, _)| reason.starts_with(begin)).map(|(_, mark)| *mark)
}

fn legend() -> String {
    let ignored = |input: &'static Input| match input.support {
        Support::Ignored(reason) => Some(reason),
        _ => None,
    };
    let reasons: Vec<_> = classes().flat_map(|class| class.inputs).filter_map(ignored).collect();
    let row = |(begin, mark): &(&str, &str)| {
        let reason = reasons.iter().find(|reason| reason.starts_with(begin)).expect("a reason of the table");
        format!("| ignored ({mark}) | accepted and ignored: {reason} |\n")
    };
    format!("| mark | meaning |\n|---|---|\n{}", MARKS.iter().map(row).collect::<String>())
}

fn section(class: &NodeClass) -> String {
    let mut text = format!("### {}\n\n", class.name);
    if !class.note.is_empty() {
        text += &format!("{}.\n\n", class.note);
    }
    text += "| input | values | what becomes of it |\n|---|---|---|\n";
    class.inputs.iter().fold(text, |text, input| text + &row(class, input))
}

fn row(class: &NodeClass, input: &Input) -> String {
    // Forty inputs that differ in their number.
    if class.name == "WanVideoLoraBlockEdit" {
        return match input.name {
            "blocks.0." => "| `blocks.0.` to `blocks.39.` | BOOLEAN | used |\n".into(),
            _ => String::new(),
        };
    }
    let support = match input.support {
        Support::Used => "used".to_owned(),
        Support::Ignored(reason) => match mark(reason) {
            Some(mark) => format!("ignored ({mark})"),
            None => format!("ignored: {reason}"),
        },
        Support::Refused(reason) if input.kind.is_widget() => {
            format!("refused unless at its default: {reason}")
        }
        Support::Refused(reason) => format!("refused: {reason}"),
    };
    format!("| `{}` | {} | {support} |\n", input.name, values(&input.kind))
}

fn values(kind: &Kind) -> String {
    match *kind {
        Kind::Link(name) => format!("link: {name}"),
        Kind::Int { min, max: Some(max), .. } => format!("INT, {min} to {max}"),
        Kind::Float { min, max: Some(max), .. } => format!("FLOAT, {min} to {max}"),
        Kind::Choice { options, .. } => options.join(", "),
        Kind::Model(folders) => {
            let names: Vec<_> = folders.iter().map(|folder| folder.name()).collect();
            format!("a file of {}", names.join(" or "))
        }
        Kind::Image => "an image of the input folder".into(),
        _ => kind.type_name().into(),
    }
}
