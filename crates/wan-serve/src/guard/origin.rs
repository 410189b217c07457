//! Requests that another site's page makes in a browser: refused (CSRF), unless the site was allowed (CORS). A name
//! that an attacker points at this machine is refused as well where no token protects it (DNS rebinding).

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::ServeError;
use crate::app::Shared;
use crate::reply::empty;

const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, DELETE, PUT, PATCH, OPTIONS");
const HEADERS: HeaderValue = HeaderValue::from_static("Content-Type, Authorization, Comfy-User, Range");

/// Sites whose pages may use the server.
#[derive(Debug, Clone, Default)]
pub(crate) struct OriginPolicy {
    allowed: Vec<String>,
    /// Without a token, only names that no stranger can point at this machine.
    check_host: bool,
}

impl OriginPolicy {
    /// Allows the pages of these origins.
    ///
    /// Errors: [`ServeError::Origin`] for what is no origin.
    pub fn new(allowed: &[String], check_host: bool) -> Result<Self, ServeError> {
        let mut origins = Vec::new();
        for origin in allowed {
            let text = origin.trim().trim_end_matches('/').to_ascii_lowercase();
            if authority(&text).is_none_or(|a| a.is_empty() || a.contains(['/', '*', ' '])) {
                return Err(ServeError::Origin { found: origin.clone() });
            }
            origins.push(text);
        }
        Ok(Self { allowed: origins, check_host })
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        if self.check_host && !is_local_name(host) && !self.is_host_of_allowed(host) {
            return false;
        }
        match headers.get(header::ORIGIN) {
            Some(origin) => origin.to_str().is_ok_and(|o| self.lists(o) || is_same(o, host)),
            None => true,
        }
    }

    fn lists(&self, origin: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    /// Whether a name is that of a site that was allowed, which knows who owns it.
    fn is_host_of_allowed(&self, host: &str) -> bool {
        let name = |text: &str| text.split(':').next().unwrap_or_default().to_ascii_lowercase();
        self.allowed.iter().filter_map(|origin| authority(origin)).any(|allowed| name(allowed) == name(host))
    }

    fn allow_headers(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.lists(origin.to_str().ok()?).then(|| origin.clone())
    }
}

fn authority(origin: &str) -> Option<&str> {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}

/// Browsers leave default ports out of both headers; proxies may add them to the host.
fn is_same(origin: &str, host: &str) -> bool {
    let port = if origin.starts_with("https:") { ":443" } else { ":80" };
    let host = host.strip_suffix(port).unwrap_or(host);
    authority(origin).is_some_and(|a| !a.is_empty() && a.eq_ignore_ascii_case(host))
}

/// Addresses are not looked up, and of names of these kinds no stranger can own one: they are of this machine or its network.
fn is_local_name(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
    const PRIVATE: [&str; 5] = [".localhost", ".local", ".internal", ".lan", ".home.arpa"];
    name.parse::<IpAddr>().is_ok()
        || (!name.is_empty() && !name.contains('.'))
        || PRIVATE.iter().any(|ending| name.ends_with(ending))
}

/// Whether a browser says that another site's page made a request that changes something.
fn is_cross_site_change(method: &Method, headers: &HeaderMap) -> bool {
    let cross = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    cross && !headers.contains_key(header::ORIGIN) && !method.is_safe()
}

/// Refuses foreign requests with 403, answers preflights, adds the headers for sites that are allowed.
pub(crate) async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let policy = &app.origins;
    let (method, headers) = (request.method(), request.headers());
    if !policy.allows(headers) || is_cross_site_change(method, headers) {
        return empty(StatusCode::FORBIDDEN);
    }
    let allowed = policy.allow_headers(headers);
    let mut response = match (method == Method::OPTIONS, &allowed) {
        (true, Some(_)) => empty(StatusCode::NO_CONTENT),
        (true, None) => empty(StatusCode::OK),
        (false, _) => next.run(request).await,
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(policy: &OriginPolicy, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("a host"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).expect("an origin"));
        }
        policy.allows(&headers)
    }

    #[test]
    fn other_sites_are_foreign() {
        let policy = OriginPolicy::default();
        assert!(allows(&policy, "127.0.0.1:8188", None));
        assert!(allows(&policy, "127.0.0.1:8188", Some("http://127.0.0.1:8188")));
        assert!(allows(&policy, "gpu.example", Some("https://gpu.example")));
        assert!(allows(&policy, "gpu.example:443", Some("https://gpu.example")));
        assert!(!allows(&policy, "gpu.example:80", Some("https://gpu.example")));
        for origin in [
            "http://evil.example",
            "null",
            "",
            "http://localhost:8188",
            "http://127.0.0.1:9",
            "http://127.0.0.1",
        ] {
            assert!(!allows(&policy, "127.0.0.1:8188", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn allowed_sites_are_listed_one_by_one() {
        let list = ["http://localhost:5173/".to_string()];
        let policy = OriginPolicy::new(&list, false).expect("an origin");
        assert!(allows(&policy, "127.0.0.1:8188", Some("http://localhost:5173")));
        assert!(!allows(&policy, "127.0.0.1:8188", Some("http://localhost:5174")));
        for bad in ["*", "localhost", "http://", "http://*", "http://a/b", "ftp://a"] {
            assert!(OriginPolicy::new(&[bad.to_string()], false).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_token_names_that_are_looked_up_are_refused() {
        let policy = OriginPolicy::new(&["http://friend.example".into()], true).expect("a policy");
        for host in [
            "127.0.0.1:8188",
            "localhost:8188",
            "[::1]:8188",
            "192.168.1.5",
            "a.localhost",
            "gpu:8188",
            "gpu.local",
            "friend.example:8188",
        ] {
            assert!(allows(&policy, host, None), "{host}");
        }
        for host in ["evil.example:8188", "127.0.0.1.evil.example", "", "localhost.evil.example"] {
            assert!(!allows(&policy, host, None), "{host}");
        }
    }
}
