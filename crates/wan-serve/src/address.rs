//! Addresses as clients write them: repeated slashes, the prefix `/api`.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// The address under which a request is routed: slashes collapsed, `/api` taken away. `/internal` has no such alias.
pub(crate) fn canonical(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let collapsed = collapse(path);
    let routed = match collapsed.strip_prefix("/api/") {
        Some(rest) if !rest.starts_with("internal/") => format!("/{rest}"),
        _ => collapsed,
    };
    if routed == path {
        return None;
    }
    let target = match uri.query() {
        Some(query) => format!("{routed}?{query}"),
        None => routed,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

fn collapse(path: &str) -> String {
    let mut collapsed = String::with_capacity(path.len());
    for character in path.chars() {
        if !(character == '/' && collapsed.ends_with('/')) {
            collapsed.push(character);
        }
    }
    collapsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_collapse_and_the_prefix_goes() {
        let routed = |path: &str| {
            let uri: Uri = path.parse().expect("an address");
            canonical(&uri).unwrap_or(uri).to_string()
        };
        assert_eq!(routed("//prompt"), "/prompt");
        assert_eq!(routed("/api/queue?a=/b//c"), "/queue?a=/b//c");
        assert_eq!(routed("///api//history/x"), "/history/x");
        assert_eq!(routed("/api/internal/logs"), "/api/internal/logs");
        assert_eq!(routed("/userdata/a%2F%2Fb"), "/userdata/a%2F%2Fb");
        assert_eq!(routed("/apinot"), "/apinot");
    }
}
