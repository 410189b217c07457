//! The nodes: one table, from which `/object_info`, validation, the conversion of saved workflows and the page in the
//! user guide are made.

mod comfy;
mod gguf;
mod kinds;
mod native;
mod vhs;
mod wrapper;

pub use kinds::{Input, Kind, ModelFolder, NodeClass, Output, Support};

/// All classes, in the order in which `/object_info` lists them.
pub fn classes() -> impl Iterator<Item = &'static NodeClass> {
    [wrapper::NODES, vhs::NODES, comfy::NODES, native::NODES, gguf::NODES].into_iter().flatten()
}

/// The class of this name.
pub fn class(name: &str) -> Option<&'static NodeClass> {
    classes().find(|class| class.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_links_have_sources() {
        let mut seen = HashSet::new();
        let made: HashSet<&str> = classes().flat_map(|c| c.outputs).map(|o| o.type_name).collect();
        for class in classes() {
            assert!(seen.insert(class.name), "{} twice", class.name);
            let mut names = HashSet::new();
            for input in class.inputs {
                assert!(names.insert(input.name), "{}: {} twice", class.name, input.name);
                if let (Kind::Link(wanted), Support::Used) = (&input.kind, &input.support) {
                    let known = wanted.split(',').any(|w| w == "*" || made.contains(w));
                    assert!(known, "{}: nothing makes the {wanted} that {} takes", class.name, input.name);
                }
            }
        }
    }

    #[test]
    fn required_inputs_come_before_optional_ones() {
        for class in classes() {
            let first_optional = class.inputs.iter().position(|i| !i.required).unwrap_or(class.inputs.len());
            assert!(class.inputs[first_optional..].iter().all(|i| !i.required), "{}", class.name);
        }
    }
}
