//! ComfyUI's `extra_model_paths.yaml`: further folders of models.
//!
//! Source: ComfyUI `utils/extra_config.py` and `folder_paths.py`, add_model_folder_path.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

/// Kind of file (`vae`, ...) and a folder with such files.
pub(crate) type KindFolder = (String, PathBuf);

/// The folders of a list, in the order in which they are looked through.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ExtraFolders {
    /// Those of sections with `is_default: true`: before ComfyUI's own, the last one of the file first.
    pub before: Vec<KindFolder>,
    /// All others: behind ComfyUI's own, in the file's order.
    pub behind: Vec<KindFolder>,
}

impl ExtraFolders {
    /// Reads sections with an optional `base_path` and `is_default`, each other key a kind of file with one folder a
    /// line. Relative folders are below `base_path`, and that is below `folder`, the list's own.
    ///
    /// `variable` is the value of a variable of the environment; `HOME` is what `~` stands for.
    ///
    /// Errors: what the YAML parser found, in one line.
    pub fn parse(
        text: &str,
        folder: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        type Sections = IndexMap<String, Option<IndexMap<String, Option<String>>>>;
        let sections: Option<Sections> = serde_saphyr::from_str(text)
            .map_err(|e| e.to_string().lines().next().unwrap_or_default().to_string())?;
        let mut found = Self::default();
        for section in sections.unwrap_or_default().into_values().flatten() {
            let value = |key: &str| section.get(key).and_then(|v| v.as_deref()).map(str::trim);
            let base = value("base_path").map(|base| folder.join(expand(base, variable)));
            let base = base.as_deref().unwrap_or(folder);
            let list =
                if value("is_default").is_some_and(is_true) { &mut found.before } else { &mut found.behind };
            for (kind, folders) in &section {
                if matches!(kind.as_str(), "base_path" | "is_default") {
                    continue;
                }
                let lines = folders.iter().flat_map(|f| f.lines()).map(str::trim).filter(|l| !l.is_empty());
                list.extend(lines.map(|line| (kind.clone(), base.join(expand(line, variable)))));
            }
        }
        // ComfyUI puts each at the front.
        found.before.reverse();
        Ok(found)
    }
}

/// Whether YAML or Python takes the text for true.
fn is_true(text: &str) -> bool {
    !matches!(text.to_ascii_lowercase().as_str(), "" | "false" | "no" | "off" | "0" | "null" | "~")
}

/// A path with `~/` at its start, `$NAME` and `${NAME}` replaced; what has no value stays as it is.
fn expand(path: &str, variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let rest = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let (mut out, mut rest) = match rest.zip(variable("HOME")) {
        Some((rest, home)) => (home, rest),
        None => (String::new(), path),
    };
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, behind) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => {
                let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                after.split_at(after.find(|c| !name(c)).unwrap_or(after.len()))
            }
        };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[before.len()..rest.len() - behind.len()]),
        }
        rest = behind;
    }
    PathBuf::from(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ExtraFolders, String> {
        let variable = |name: &str| match name {
            "HOME" => Some("/home/me".to_string()),
            "BIG_1" => Some("/mnt/big".to_string()),
            _ => None,
        };
        ExtraFolders::parse(text, Path::new("/etc/c"), &variable)
    }

    fn folders(list: &[(&str, &str)]) -> Vec<KindFolder> {
        list.iter().map(|(kind, path)| (kind.to_string(), PathBuf::from(path))).collect()
    }

    #[test]
    fn folders_are_in_the_order_of_the_file() {
        let text = "# a comment\nzoo:\n    base_path: /data/comfy/\n    vae: models/vae/\n    diffusion_models: |\n      \
                    models/unet\n      models/dit\n    loras: /other/loras\nother:\n    clip: text\nempty:\n";
        let behind = [
            ("vae", "/data/comfy/models/vae/"),
            ("diffusion_models", "/data/comfy/models/unet"),
            ("diffusion_models", "/data/comfy/models/dit"),
            ("loras", "/other/loras"),
            ("clip", "/etc/c/text"),
        ];
        assert_eq!(parse(text).unwrap(), ExtraFolders { before: vec![], behind: folders(&behind) });
        assert!(parse("a: [b\n").is_err());
        assert_eq!(parse("# nothing\n").unwrap(), ExtraFolders::default());
    }

    #[test]
    fn default_sections_come_first_and_their_last_folder_before_all() {
        let text = "a:\n  vae: /a\nb:\n  is_default: true\n  vae: |\n    /b1\n    /b2\nc:\n  is_default: yes\n  \
                    vae: /c\nd:\n  is_default: false\n  vae: /d\n";
        let found = parse(text).unwrap();
        assert_eq!(found.before, folders(&[("vae", "/c"), ("vae", "/b2"), ("vae", "/b1")]));
        assert_eq!(found.behind, folders(&[("vae", "/a"), ("vae", "/d")]));
    }

    #[test]
    fn home_and_variables_are_replaced() {
        let path = |base: &str| {
            parse(&format!("a:\n  base_path: '{base}'\n  vae: v\n")).unwrap().behind[0].1.clone()
        };
        for (base, expected) in [
            ("~", "/home/me/v"),
            ("~/x", "/home/me/x/v"),
            ("~other/x", "/etc/c/~other/x/v"),
            ("$BIG_1/x", "/mnt/big/x/v"),
            ("${BIG_1}x", "/mnt/bigx/v"),
            ("~/$BIG_1/$NONE", "/home/me//mnt/big/$NONE/v"),
            ("/a$/${NONE}/${BIG_1", "/a$/${NONE}/${BIG_1/v"),
            ("/a$é${}", "/a$é${}/v"),
        ] {
            assert_eq!(path(base), PathBuf::from(expected), "{base}");
        }
    }
}
