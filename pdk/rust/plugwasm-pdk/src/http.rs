//! HTTP requests, which the host sends if it allows them.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::{env, Block, Error, FromBytes, Result, ToBytes};

/// A request.
///
/// ```no_run
/// # use plugwasm_pdk::{http::Request, Result};
/// # fn f() -> Result<()> {
/// let response = Request::new("https://example.com/").header("accept", "text/plain").send()?;
/// let text: String = response.body()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    url: String,
    method: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

// By hand, because deriving it would make plugins compile serde's macros that do not use them.
impl serde::Serialize for Request {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> core::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        let mut fields = serializer.serialize_struct("Request", 3)?;
        fields.serialize_field("url", &self.url)?;
        fields.serialize_field("method", &self.method)?;
        fields.serialize_field("headers", &self.headers)?;
        fields.end()
    }
}

impl Request {
    /// A GET request.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), method: "GET".into(), headers: BTreeMap::new(), body: Vec::new() }
    }

    /// Sets the method.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = method.into();
        self
    }

    /// Sets a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sets the body.
    ///
    /// # Errors
    ///
    /// The body cannot be written.
    pub fn body(mut self, body: impl ToBytes) -> Result<Self> {
        self.body = body.to_bytes()?;
        Ok(self)
    }

    /// Sends it. The host must allow it: otherwise, and if no answer comes, the call ends here with
    /// the host's error.
    ///
    /// # Errors
    ///
    /// The host has no room for the request.
    pub fn send(&self) -> Result<Response> {
        let document = serde_json::to_vec(self).map_err(|error| Error::new(error.to_string()))?;
        let document = Block::new(&document)?;
        let body = Block::new(&self.body)?;
        // SAFETY: these functions take any numbers.
        let body = unsafe { env::http_request(document.into_handle(), body.into_handle()) };
        let body = Block::from_handle(body);
        // SAFETY: as above.
        let (status, headers) = unsafe { (env::http_status_code(), env::http_headers()) };
        let headers = Block::from_handle(headers).to_vec();
        let headers = if headers.is_empty() {
            BTreeMap::new()
        } else {
            serde_json::from_slice(&headers).map_err(|error| {
                Error::new(alloc::format!("the response's headers cannot be read: {error}"))
            })?
        };
        Ok(Response { status: u16::try_from(status).unwrap_or(0), headers, body })
    }
}

/// The answer of a server. A status that is no success (404, …) is no error.
#[derive(Debug)]
pub struct Response {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Block,
}

impl Response {
    /// The status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// A header, by its name in lower case. There are none where the host does not tell them.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// All headers, by their names in lower case.
    #[must_use]
    pub const fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }

    /// The body, as a type.
    ///
    /// # Errors
    ///
    /// It is not of that type.
    pub fn body<T: FromBytes>(&self) -> Result<T> {
        T::from_bytes(self.body.to_vec())
    }
}
