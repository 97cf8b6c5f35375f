//! When a certificate is to be renewed: decisions without a clock of their own.

use time::OffsetDateTime;

use crate::tls::acme::renewal_info::RenewalInfo;
use crate::tls::authority::BACKDATE;
use crate::tls::certificate::{Certificate, Validity};
use crate::tls::subject;

/// The moment chosen from what the CA told, but never later than at the configured share of the life: the CA, or what is
/// kept of its words, may be wrong, and a certificate must not expire for that. Caddy decides so, too.
#[must_use]
pub fn due(validity: &Validity, ratio: f64, told: Option<&RenewalInfo>) -> OffsetDateTime {
    let by_share = validity.renewal(ratio);
    told.map_or(by_share, |told| told.selected.min(by_share))
}

/// The life that a certificate of the internal CA is given: what it is back-dated by has passed before it is there, and
/// would have short ones renewed at once.
#[must_use]
pub fn real_life(validity: Validity) -> Validity {
    let began = validity.not_before + BACKDATE;
    if began < validity.not_after { Validity { not_before: began, ..validity } } else { validity }
}

/// Whether a certificate that was just issued is what was ordered.
///
/// # Errors
/// What is wrong with it, for the admin.
pub fn check_issued(certificate: &Certificate, name: &str, now: OffsetDateTime) -> Result<(), String> {
    let name = subject::parse_ip(name).map_or_else(|| name.to_owned(), |ip| ip.to_string());
    if !certificate.names.iter().any(|n| subject::matches(n, &name)) {
        return Err(format!("the CA issued a certificate for another name ({})", certificate.names.join(", ")));
    }
    if certificate.validity.is_expired(now) {
        return Err("the CA issued a certificate that has expired; is the clock of this machine right?".into());
    }
    if certificate.validity.not_before > now {
        tracing::warn!(name, "the new certificate is not valid yet; is the clock of this machine right?");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::acme::renewal_info::Window;
    use rcgen::date_time_ymd;

    fn told(selected: OffsetDateTime) -> RenewalInfo {
        let window = Window { start: selected, end: selected };
        let ask_again = OffsetDateTime::UNIX_EPOCH;
        RenewalInfo { window, explanation_url: String::new(), ask_again, selected, identifier: String::new() }
    }

    #[test]
    fn the_ca_may_ask_for_it_earlier_but_not_later() {
        let not_before = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let validity = Validity { not_before, not_after: not_before + time::Duration::days(90) };
        let day = |n: i64| not_before + time::Duration::days(n);
        assert_eq!(due(&validity, 1.0 / 3.0, None), day(60));
        assert_eq!(due(&validity, 1.0 / 3.0, Some(&told(day(10)))), day(10));
        assert_eq!(due(&validity, 1.0 / 3.0, Some(&told(day(89)))), day(60));
        assert_eq!(due(&validity, 0.5, None), day(45));
    }

    #[test]
    fn the_life_of_an_internal_certificate_begins_when_it_is_made() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let made = |seconds| {
            let not_after = now + time::Duration::seconds(seconds);
            due(&real_life(Validity { not_before: now - BACKDATE, not_after }), 1.0 / 3.0, None) - now
        };
        assert_eq!(made(3), time::Duration::seconds(2));
        assert_eq!(made(12 * 3600), time::Duration::hours(8));
        // Of an authority that is itself too young for the whole of it.
        let short = Validity { not_before: now, not_after: now + time::Duration::seconds(30) };
        assert_eq!(real_life(short), short);
    }

    #[test]
    fn what_was_not_ordered_is_not_served() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["*.a.test".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 2, 1));
        let made = params.self_signed(&key).unwrap();
        let made = Certificate::from_pem(made.pem().as_bytes(), key.serialize_pem().as_bytes(), vec![]).unwrap();
        let (good, late) = (date_time_ymd(2026, 1, 15), date_time_ymd(2026, 2, 2));
        for name in ["*.a.test", "b.a.test", "192.0.2.1"] {
            assert_eq!(check_issued(&made, name, good), Ok(()), "{name}");
        }
        assert!(check_issued(&made, "b.test", good).unwrap_err().contains("another name (*.a.test, 192.0.2.1)"));
        assert!(check_issued(&made, "b.a.test", late).unwrap_err().contains("has expired"));
    }
}
