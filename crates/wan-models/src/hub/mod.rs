//! Fetching files from a Hugging Face hub.
//!
//! The cache's layout is `hf-hub`'s; the transfer is made here, on the HTTP client that crate uses, because it appends
//! whatever comes to a partial file, also where a mirror ignores the range, checks neither length nor hash, and sends
//! the token on to the storage's host.

mod cache;
mod error;
mod metadata;
mod pull;
mod transfer;

use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

pub use cache::HubCache;
pub use error::HubError;
pub(crate) use metadata::is_sha256;
pub use pull::{PullEvent, PullObserver, verify};

/// The hub where none is named.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// A connection on which nothing arrives for this long is given up and made anew.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Which hub, as whom, and into which cache.
#[derive(Clone)]
pub struct HubOptions {
    /// The cache.
    pub cache: HubCache,
    /// Address of the hub or of a mirror, without a slash at the end.
    pub endpoint: String,
    /// Access token; sent to the endpoint's host only.
    pub token: Option<String>,
    /// Whether the network must not be used.
    pub offline: bool,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Repository, `OWNER/NAME`.
    pub repo: String,
    /// Path in it.
    pub path: String,
    /// Length in bytes, where known.
    pub bytes: Option<u64>,
    /// SHA-256 in lower-case hex, where known.
    pub sha256: Option<String>,
}

impl RemoteFile {
    /// `REPO/PATH`, for messages.
    pub fn label(&self) -> String {
        format!("{}/{}", self.repo, self.path)
    }
}

/// A hub that files are pulled from.
pub struct Hub {
    options: HubOptions,
    agent: Agent,
}

impl Hub {
    /// A client; connects to nothing yet.
    pub fn new(options: HubOptions) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .user_agent(concat!("wan-run/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { options, agent: config.new_agent() }
    }

    /// The cache it fills.
    pub fn cache(&self) -> &HubCache {
        &self.options.cache
    }

    /// Errors: [`HubError::Endpoint`] if what is named as the hub is no address of one.
    fn check_endpoint(&self) -> Result<(), HubError> {
        let endpoint = &self.options.endpoint;
        let uri = endpoint.parse::<Uri>().ok();
        let known = uri.as_ref().is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if known { Ok(()) } else { Err(HubError::Endpoint { endpoint: endpoint.clone() }) }
    }

    fn url(&self, file: &RemoteFile) -> String {
        let endpoint = self.options.endpoint.trim_end_matches('/');
        format!("{endpoint}/{}/resolve/main/{}", file.repo, escape(&file.path))
    }

    /// One request; statuses that end the pull become errors. `head` asks for the headers of this very address and
    /// follows nothing; `from` asks for the rest of the body from there.
    fn request(
        &self,
        file: &RemoteFile,
        url: &str,
        head: bool,
        from: Option<u64>,
    ) -> Result<Response<Body>, HubError> {
        let mut builder = if head { self.agent.head(url) } else { self.agent.get(url) };
        // A compressed answer has another length than the file.
        builder = builder.header("Accept-Encoding", "identity");
        if let Some(from) = from.filter(|n| *n > 0) {
            builder = builder.header("Range", format!("bytes={from}-"));
        }
        if let Some(token) = &self.options.token
            && same_host(url, &self.options.endpoint)
        {
            builder = builder.header("Authorization", format!("Bearer {token}"));
        }
        let request = builder.config();
        let request = if head { request.max_redirects(0).max_redirects_will_error(false) } else { request };
        let response =
            request.build().call().map_err(|e| interrupted(file, format!("{}: {e}", origin(url))))?;
        match response.status().as_u16() {
            status @ (401 | 403) => {
                Err(HubError::Denied { file: file.label(), status, with_token: self.options.token.is_some() })
            }
            404 | 410 => {
                Err(HubError::NotFound { file: file.label(), endpoint: self.options.endpoint.clone() })
            }
            status @ (408 | 429 | 500..=599) => Err(interrupted(file, format!("the hub answers {status}"))),
            _ => Ok(response),
        }
    }
}

fn interrupted(file: &RemoteFile, reason: impl std::fmt::Display) -> HubError {
    HubError::Interrupted { file: file.label(), reason: reason.to_string(), kept: 0 }
}

/// Scheme and host of an address, without what else may be in it.
fn origin(url: &str) -> String {
    let of = |uri: &Uri| {
        let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}://{}{port}", uri.scheme_str()?, uri.host()?))
    };
    url.parse::<Uri>().ok().as_ref().and_then(of).unwrap_or_else(|| url.to_owned())
}

/// Whether an address has the endpoint's host, port and scheme, so that what is sent there is no less protected.
fn same_host(url: &str, endpoint: &str) -> bool {
    let host = |text: &str| {
        let uri = text.parse::<Uri>().ok()?;
        Some((uri.scheme()?.clone(), uri.authority()?.clone()))
    };
    host(url).is_some() && host(url) == host(endpoint)
}

/// A path as part of an address.
fn escape(path: &str) -> String {
    path.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                char::from(b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_the_endpoint_only() {
        assert!(same_host("https://hub.test/a/b", "https://hub.test"));
        assert!(!same_host("https://cdn.test/a", "https://hub.test"));
        assert!(!same_host("https://hub.test:8443/a", "https://hub.test"));
        assert!(!same_host("http://hub.test/a", "https://hub.test"));
        assert!(!same_host("no address", "no address either"));
    }

    #[test]
    fn errors_name_the_host_alone() {
        assert_eq!(origin("https://u:p@hub.test:8443/a?token=x"), "https://hub.test:8443");
        assert_eq!(origin("http://hub.test/a"), "http://hub.test");
    }

    #[test]
    fn paths_are_escaped() {
        assert_eq!(escape("a b/c#1%.txt"), "a%20b/c%231%25.txt");
    }
}
