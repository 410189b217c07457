//! What the hub says about a file before it is fetched.

use ureq::http::{HeaderMap, Uri};

use super::{Hub, HubError, RemoteFile};

/// Redirects followed until all is known.
const MAX_REDIRECTS: usize = 8;

/// Identity of one revision of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Commit of the repository.
    pub commit: String,
    /// Name of the blob: the SHA-256 for large files, a git hash for small ones.
    pub etag: String,
    /// Length in bytes.
    pub bytes: u64,
}

impl Metadata {
    /// The SHA-256 if the etag is one.
    pub fn sha256(&self) -> Option<&str> {
        is_sha256(&self.etag).then_some(self.etag.as_str())
    }
}

/// Whether the text is a SHA-256 in lower-case hex.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// What the answers on the way said so far; the hub's own answer, which comes first, wins over its storage's.
#[derive(Default)]
struct Found {
    commit: Option<String>,
    etag: Option<String>,
    bytes: Option<u64>,
}

impl Hub {
    /// Asks for commit, etag and length of a file and holds them against its description.
    pub(super) fn metadata(&self, file: &RemoteFile) -> Result<Metadata, HubError> {
        let unexpected = |found: String, expected| HubError::Unexpected {
            file: file.label(),
            endpoint: self.options.endpoint.clone(),
            found,
            expected,
        };
        let mut url = self.url(file);
        let mut found = Found::default();
        for _ in 0..MAX_REDIRECTS {
            let response = self.request(file, &url, true, None)?;
            let status = response.status();
            found.read(response.headers(), status.is_redirection());
            if let Found { commit: Some(commit), etag: Some(etag), bytes: Some(bytes) } = &found {
                let metadata = Metadata { commit: commit.clone(), etag: etag.clone(), bytes: *bytes };
                if !is_name(commit) || !is_name(etag) {
                    return Err(unexpected(format!("commit `{commit}`, etag `{etag}`"), "plain hashes"));
                }
                return check(file, metadata);
            }
            if !status.is_redirection() {
                break;
            }
            let location = header(response.headers(), "location")
                .ok_or_else(|| unexpected("a redirect to nowhere".into(), "a location"))?;
            url = absolute(&url, &location);
        }
        Err(unexpected(
            "an answer without X-Repo-Commit, ETag or a length".into(),
            "the headers of a Hugging Face hub",
        ))
    }
}

impl Found {
    fn read(&mut self, headers: &HeaderMap, redirect: bool) {
        let own = |name| header(headers, name);
        self.commit = self.commit.take().or_else(|| own("x-repo-commit"));
        let etag =
            own("x-linked-etag").or_else(|| own("etag").filter(|_| !redirect || self.commit.is_some()));
        let etag = etag.map(|e| e.trim_start_matches("W/").trim_matches('"').to_string());
        self.etag = self.etag.take().or(etag);
        let length = own("x-linked-size").or_else(|| own("content-length").filter(|_| !redirect));
        self.bytes = self.bytes.take().or_else(|| length?.parse().ok());
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_string)
}

/// Whether the text can be a file's name that leads nowhere else.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn absolute(from: &str, location: &str) -> String {
    if !location.starts_with('/') {
        return location.to_string();
    }
    match from.parse::<Uri>() {
        Ok(uri) => {
            let scheme = uri.scheme_str().unwrap_or("https");
            if location.starts_with("//") {
                return format!("{scheme}:{location}");
            }
            let host = uri.authority().map(|a| a.as_str()).unwrap_or_default();
            format!("{scheme}://{host}{location}")
        }
        Err(_) => location.to_string(),
    }
}

fn check(file: &RemoteFile, metadata: Metadata) -> Result<Metadata, HubError> {
    match (file.bytes, &file.sha256, metadata.sha256()) {
        (Some(expected), _, _) if expected != metadata.bytes => Err(HubError::WrongSize {
            file: file.label(),
            found: metadata.bytes,
            place: "on the hub",
            expected,
        }),
        (_, Some(expected), Some(found)) if expected != found => Err(HubError::WrongHash {
            file: file.label(),
            found: found.to_string(),
            place: "on the hub",
            expected: expected.clone(),
        }),
        _ => Ok(metadata),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        assert!(is_name("85c4a61c30e0497aa44b91d93a893b62-3") && is_name(&"a".repeat(40)));
        for name in ["", "..", "../x", "a/b", "a\\b", ".hidden", "a b"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn redirects_may_be_relative() {
        assert_eq!(absolute("http://h:1/a/b?x", "/c/d"), "http://h:1/c/d");
        assert_eq!(absolute("http://h:1/a", "https://cdn/x"), "https://cdn/x");
        assert_eq!(absolute("https://h:1/a", "//cdn/x"), "https://cdn/x");
    }
}
