//! What an ACME issuer names and must be good: the URLs of the CA, the roots it is trusted by. Told when the file is
//! loaded, not when a certificate is due.

use crate::client::{RootSource, TlsClientOptions, Trust, Versions};
use crate::config::compile_cx::{CompileCx, CompileError};
use crate::config::tls_types::AcmeIssuer;
use crate::tls::acme::check_url;

/// Reports what is wrong, at the place of the issuer.
pub fn check(issuer: &AcmeIssuer, cx: &mut CompileCx<'_>) {
    for (field, url) in [("ca", &issuer.ca), ("test_ca", &issuer.test_ca)] {
        if url.is_empty() {
            continue;
        }
        if let Err(why) = check_url(url) {
            let error = unusable(format!("`{url}` is not the directory of a CA: {why}"))
                .help("write the whole URL, such as `https://ca.example.com:9000/acme/local/directory`");
            cx.at(field, |cx| cx.report(error));
        }
    }
    for (i, file) in issuer.trusted_roots_pem_files.iter().enumerate() {
        // Once it is there, the configuration may be good.
        cx.watched.push(file.into());
        let trust = Trust::Only(vec![RootSource::PemFile(file.into())]);
        if let Err(error) = (TlsClientOptions { trust, ..TlsClientOptions::default() }).build(Versions::default()) {
            let error = unusable(format!("the root of the CA cannot be used: {error}")).help(
                "`acme_ca_root` and `trusted_roots` name a PEM file with the certificate that signed the CA's own",
            );
            cx.at("trusted_roots_pem_files", |cx| cx.at(i, |cx| cx.report(error)));
        }
    }
}

fn unusable(message: String) -> CompileError {
    CompileError::new("acme-ca-not-usable", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::registry::Registry;

    static EMPTY: Registry = Registry { directives: &[], handlers: &[], matchers: &[] };

    fn messages(issuer: &AcmeIssuer) -> Vec<String> {
        let mut cx = CompileCx::new(&EMPTY);
        check(issuer, &mut cx);
        cx.errors.into_iter().map(|error| error.message).collect()
    }

    #[test]
    fn urls_are_whole() {
        let ca = |ca: &str| messages(&AcmeIssuer { ca: ca.into(), ..AcmeIssuer::default() });
        for good in ["", "https://ca.test/dir", "https://[::1]:14000/dir", "http://127.0.0.1:1/"] {
            assert_eq!(ca(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["localhost:14000", "ca.test", "ca.test/dir", "/dir", "ftp://ca.test/dir", "https://", "not a url"] {
            assert!(matches!(&ca(bad)[..], [one] if one.contains(bad)), "{bad}");
        }
        let test = AcmeIssuer { test_ca: "ca.test".into(), ..AcmeIssuer::default() };
        assert_eq!(messages(&test).len(), 1);
    }

    #[test]
    fn roots_are_certificates_that_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let junk = folder.path().join("junk.pem");
        std::fs::write(&junk, "junk").unwrap();
        for file in [junk.as_path(), "/nonexistent/root.pem".as_ref(), folder.path()] {
            let file = file.display().to_string();
            let issuer = AcmeIssuer { trusted_roots_pem_files: vec![file.clone()], ..AcmeIssuer::default() };
            assert!(matches!(&messages(&issuer)[..], [one] if one.contains(&file)), "{file}");
        }
    }
}
