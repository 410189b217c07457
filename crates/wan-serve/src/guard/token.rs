//! The token, and the ways in which clients present it.

use axum::http::{HeaderMap, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::ServeError;

/// Start of the name of the cookie of a browser that has logged in.
const COOKIE: &str = "wan-run-session";

/// The shared secret of a server. Compared in constant time, and shown to nobody who does not know it.
#[derive(Clone)]
pub struct Token {
    text: String,
    /// Of the server alone: who guesses a token cannot tell what its cookie would be.
    salt: String,
}

/// What a request says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presented {
    /// It knows the token.
    Right,
    /// It tried.
    Wrong,
    /// It did not try.
    Nothing,
}

impl Token {
    /// Takes a token.
    ///
    /// Errors: [`ServeError::Token`] if it is empty, short, or cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, ServeError> {
        let found = match text.len() {
            0 => "an empty one",
            1..8 => "fewer than 8 characters",
            513.. => "more than 512 characters",
            _ if !text.bytes().all(|b| b.is_ascii_graphic()) => "a space, or a character outside of ASCII",
            _ => return Ok(Self { text: text.to_owned(), salt: random() }),
        };
        Err(ServeError::Token { found })
    }

    /// A new random token: 122 bits.
    pub fn random() -> Self {
        Self { text: random(), salt: random() }
    }

    /// The same token with the salt of earlier runs, so that their cookies stay good.
    pub(crate) fn with_salt(self, salt: String) -> Self {
        Self { salt, ..self }
    }

    /// The token itself, to be shown to its owner.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Whether `text` is the token. The time this takes depends on the length of `text` alone.
    pub(crate) fn is(&self, text: &[u8]) -> bool {
        let digest = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        digest(text).ct_eq(&digest(self.text.as_bytes())).into()
    }

    /// The cookie for a browser that has shown the token: it follows from the token and the salt, so that it outlives a
    /// restart, and gives neither away.
    pub(crate) fn cookie(&self) -> String {
        format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name(), self.session())
    }

    /// Browsers keep cookies by host, whatever the port: servers on one host need names of their own.
    fn cookie_name(&self) -> String {
        format!("{COOKIE}-{}", &self.digest("name")[..8])
    }

    fn session(&self) -> String {
        self.digest("session")
    }

    fn digest(&self, purpose: &str) -> String {
        let digest = Sha256::digest(format!("wan-run {purpose}\0{}\0{}", self.salt, self.text));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Looks for the token in a request: header, query, cookie.
    pub(crate) fn look(&self, headers: &HeaderMap, uri: &Uri) -> Presented {
        let mut seen = Presented::Nothing;
        for right in
            [self.in_header(headers), self.in_query(uri), self.in_cookie(headers)].into_iter().flatten()
        {
            if right {
                return Presented::Right;
            }
            seen = Presented::Wrong;
        }
        seen
    }

    fn in_header(&self, headers: &HeaderMap) -> Option<bool> {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        let Some(space) = value.iter().position(|b| *b == b' ') else { return Some(false) };
        let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Some(self.is(rest));
        }
        let password = scheme.eq_ignore_ascii_case(b"basic").then(|| password(rest)).flatten();
        Some(password.is_some_and(|password| self.is(&password)))
    }

    fn in_query(&self, uri: &Uri) -> Option<bool> {
        let value = parameter(uri.query()?, "token")?;
        Some(self.is(&value))
    }

    /// A cookie of another server on the same host is no attempt.
    fn in_cookie(&self, headers: &HeaderMap) -> Option<bool> {
        let (cookie, session) = (self.cookie_name(), self.session());
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let right =
            pairs.any(|(name, value)| name == cookie && value.as_bytes().ct_eq(session.as_bytes()).into());
        right.then_some(true)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// 122 random bits.
pub(crate) fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The password of `base64(user:password)`.
fn password(encoded: &[u8]) -> Option<Vec<u8>> {
    let text = STANDARD.decode(encoded).ok()?;
    let colon = text.iter().position(|b| *b == b':')?;
    Some(text[colon + 1..].to_vec())
}

/// The percent-decoded value of a query parameter.
pub(crate) fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(percent_decode_str(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const BCRYPT: &str = "$2b$12$abcdefghijklmnopqrstuv.wxyz/0123456789";

    fn look(authorization: Option<&str>, uri: &str) -> Presented {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
        }
        Token::new(BCRYPT).expect("a token").look(&headers, &uri.parse().expect("an address"))
    }

    #[test]
    fn every_way_of_presenting_it_works() {
        assert_eq!(look(Some(&format!("Bearer {BCRYPT}")), "/"), Presented::Right);
        assert_eq!(look(Some(&format!("bearer  {BCRYPT}")), "/"), Presented::Right);
        let basic = STANDARD.encode(format!("anyone:{BCRYPT}"));
        assert_eq!(look(Some(&format!("Basic {basic}")), "/"), Presented::Right);
        assert_eq!(look(None, &format!("/ws?clientId=c&token={BCRYPT}")), Presented::Right);
        assert_eq!(look(None, &format!("/ws?token={}", BCRYPT.replace('$', "%24"))), Presented::Right);
        assert_eq!(look(Some("Bearer wrong"), &format!("/?token={BCRYPT}")), Presented::Right);
    }

    #[test]
    fn what_is_malformed_is_wrong() {
        for header in ["Bearer", "Bearer ", "Bearer x", "Basic", "Basic !!", "Basic eA==", "Digest x", BCRYPT]
        {
            assert_eq!(look(Some(header), "/"), Presented::Wrong, "{header}");
        }
        assert_eq!(look(None, "/?token="), Presented::Wrong);
        assert_eq!(look(None, "/?token=%zz%"), Presented::Wrong);
        assert_eq!(look(None, "/?tokens=x"), Presented::Nothing);
    }

    #[test]
    fn the_cookie_opens_and_does_not_tell() {
        let token = Token::new(BCRYPT).expect("a token");
        let cookie = token.cookie();
        assert!(!cookie.contains(BCRYPT) && cookie.contains("HttpOnly; SameSite=Strict"));
        let mut headers = HeaderMap::new();
        let pair = cookie.split(';').next().expect("a pair");
        headers.insert(header::COOKIE, HeaderValue::from_str(&format!("a=b; {pair}")).expect("a header"));
        assert_eq!(token.look(&headers, &Uri::from_static("/")), Presented::Right);
        assert_ne!(Token::new(BCRYPT).expect("a token").cookie(), cookie, "a guess does not tell the cookie");
        assert_eq!(Token::new(BCRYPT).expect("a token").with_salt(token.salt.clone()).cookie(), cookie);
        let other = Token::random();
        assert_eq!(other.look(&headers, &Uri::from_static("/")), Presented::Nothing);
        let name = |token: &Token| token.cookie().split('=').next().map(str::to_owned);
        assert_ne!(name(&token), name(&other), "neither server's cookie takes the place of the other's");
    }

    #[test]
    fn tokens_that_no_client_could_send_are_refused() {
        for text in ["", "short", "with space", "umläut-in-it", &"x".repeat(513)] {
            assert!(Token::new(text).is_err(), "{text}");
        }
        assert_eq!(format!("{:?}", Token::random()), "Token(…)");
    }
}
