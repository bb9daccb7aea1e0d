//! External address of an attempt: the requirements on it, and the wait for it.

use flashjob_api::{DeviceState, reason};

use super::draft::Draft;
use crate::flashjob::observed::{Address, AddressWish, Endpoint, Service};

/// Maximum number of kept addresses in a message.
const SHOWN_KEPT: usize = 5;

impl Draft<'_> {
    /// Requirements on an address for this device.
    pub(super) fn address_wish(&self, uid: &str, needs_ip: bool) -> AddressWish {
        let endpoint = self.records.get(uid).and_then(|record| record.host_endpoint.as_deref());
        AddressWish {
            needs_ip,
            requested_ip: self.spec.external_ip.as_deref().and_then(|text| text.parse().ok()),
            device: endpoint.and_then(Endpoint::read).and_then(|endpoint| endpoint.address()),
        }
    }

    pub(super) fn await_address(&mut self, uid: &str, wish: &AddressWish, addresses: &[Address]) {
        let Some(record) = self.records.get(uid) else { return };
        // `since` is stored, so a restart of the operator does not extend the wait.
        let since = record.holds_since().unwrap_or_else(|| self.now());
        // The device must not be given an address other than the requested one.
        let mismatch = wish.requested_ip.zip(addresses.first()).map(|(requested_ip, address)| {
            format!(
                "the load balancer assigned {}, but externalIP requests {requested_ip}",
                address.text
            )
        });
        let kept = self.kept_addresses();
        let message = mismatch
            .clone()
            .unwrap_or_else(|| format!("the Service has no external address yet{kept}"));
        self.set(uid, DeviceState::Exposing, |record| {
            record.reason = Some(reason::WAITING_FOR_ADDRESS.name.to_owned());
            record.message = Some(message);
        });
        let seconds = self.spec.address_timeout_seconds;
        if !self.over(since, seconds) {
            return;
        }
        let message = format!("no external address within {seconds} s");
        if let Some(mismatch) = mismatch {
            return self.fail_attempt(
                uid,
                reason::ADDRESS_TIMEOUT,
                &format!("{message}: {mismatch}"),
            );
        }
        // A Service with only host names never gets an IP address, no matter how long the device
        // waits.
        let has_no_address_that_fits = |service: &Service| {
            !service.addresses.is_empty()
                && !service.addresses.iter().any(|address| wish.fits(address))
        };
        if self.observed.services.iter().any(|service| has_no_address_that_fits(service)) {
            let message = format!(
                "{message}: the load balancer provides only a host name, but the device needs an \
                 IP address"
            );
            return self.fail_attempt(uid, reason::ADDRESS_TIMEOUT, &message);
        }
        // A pool that is smaller than the fleet is no fault (the first users' MetalLB pool has
        // about nine addresses): an address in use is given back, so no attempt is counted.
        if self.observed.addresses_in_use {
            let message = format!("{message}{kept}");
            return self.back_to_queue(uid, Some((reason::WAITING_FOR_ADDRESS, &message)));
        }
        self.fail_attempt(uid, reason::ADDRESS_TIMEOUT, &message);
    }

    /// Names the addresses that failed attempts keep, as the end of a sentence.
    fn kept_addresses(&self) -> String {
        let kept = &self.observed.kept_addresses;
        let list = kept.iter().take(SHOWN_KEPT).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match kept.len().saturating_sub(SHOWN_KEPT) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if kept.is_empty() {
            return String::new();
        }
        let seconds = self.observed.periods.late_callback_seconds;
        format!("; failed attempts keep these addresses for {seconds} s: {list}{more}")
    }
}
