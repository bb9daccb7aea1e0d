//! Simulated load balancer: a pool of loopback addresses, one for each Service, released when the
//! Service is deleted.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::process;

const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// Settings of the load balancer.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The first address of the pool.
    #[arg(long, default_value = "127.0.1.1")]
    pub first: Ipv4Addr,
    /// Number of addresses.
    #[arg(long, default_value_t = 9)]
    pub count: u32,
    /// Milliseconds before a Service has its address.
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Give only a host name, as some clouds do.
    #[arg(long)]
    pub as_hostname: bool,
    /// Set no finalizer: fewer requests, for load tests.
    #[arg(long)]
    pub no_finalizer: bool,
}

/// Assigned addresses, free addresses, and the Services that wait for one.
#[derive(Debug, Default)]
pub struct Pool {
    free: VecDeque<Ipv4Addr>,
    addresses: BTreeMap<String, Ipv4Addr>,
    waiting: VecDeque<(String, Option<Ipv4Addr>)>,
}

impl Pool {
    /// Returns a pool of addresses from `first` on.
    #[must_use]
    pub fn new(first: Ipv4Addr, count: u32) -> Self {
        let free = (0..count).map(|offset| Ipv4Addr::from(u32::from(first) + offset)).collect();
        Self { free, ..Self::default() }
    }

    /// Records a Service that already has an address, from before a restart.
    pub fn adopt(&mut self, service: &str, address: Ipv4Addr) {
        self.free.retain(|free| *free != address);
        self.addresses.insert(service.to_owned(), address);
    }

    /// Requests an address for a Service, this one if given. First come, first served.
    pub fn want(&mut self, service: &str, wish: Option<Ipv4Addr>) {
        if !self.addresses.contains_key(service)
            && !self.waiting.iter().any(|(name, _)| name == service)
        {
            self.waiting.push_back((service.to_owned(), wish));
        }
    }

    /// Removes a Service, and frees its address.
    pub fn give_back(&mut self, service: &str) {
        self.waiting.retain(|(name, _)| name != service);
        self.free.extend(self.addresses.remove(service));
    }

    /// Assigns an address to the next Service that can have one, and returns both.
    pub fn serve_next(&mut self) -> Option<(String, Ipv4Addr)> {
        let fits = |(_, wish): &(String, Option<Ipv4Addr>)| {
            wish.map_or(!self.free.is_empty(), |wish| self.free.contains(&wish))
        };
        let index = self.waiting.iter().position(fits)?;
        let (service, wish) = self.waiting.remove(index)?;
        let address = match wish {
            Some(wish) => {
                self.free.retain(|free| *free != wish);
                wish
            }
            None => self.free.pop_front()?,
        };
        self.addresses.insert(service.clone(), address);
        Some((service, address))
    }
}

/// Assigns addresses until the process ends.
///
/// # Errors
/// None that last: a failed watch reconnects.
pub async fn run(client: Client, settings: Settings) -> anyhow::Result<()> {
    let mut pool = Pool::new(settings.first, settings.count);
    let events = watcher::watcher(Api::<Service>::all(client.clone()), watcher::Config::default())
        .backoff(process::Pauses::default());
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(service) | Event::Apply(service)) => {
                see(&client, &mut pool, &service).await
            }
            Ok(Event::Delete(service)) => pool.give_back(&key(&service)),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => tracing::warn!(%error, "the watch broke"),
        }
        while let Some((service, address)) = pool.serve_next() {
            tokio::spawn(give(client.clone(), settings.clone(), service, address));
        }
    }
    Ok(())
}

fn key(service: &Service) -> String {
    format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any())
}

async fn see(client: &Client, pool: &mut Pool, service: &Service) {
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return;
    }
    let key = key(service);
    if service.metadata.deletion_timestamp.is_some() {
        if service.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            let rest: Vec<&String> =
                service.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
            let api: Api<Service> =
                Api::namespaced(client.clone(), &service.namespace().unwrap_or_default());
            let patch = json!({"metadata": {"finalizers": rest}});
            if let Err(error) =
                api.patch(&service.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
            {
                tracing::debug!(%error, "a finalizer could not be taken off");
            }
        }
        return pool.give_back(&key);
    }
    let ingress = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|status| status.ingress.clone());
    let ingress_address =
        ingress.iter().flatten().find_map(|entry| entry.ip.as_ref().or(entry.hostname.as_ref()));
    match ingress_address {
        Some(address) => {
            if let Ok(address) = address.trim_end_matches(".simulated").replace('-', ".").parse() {
                pool.adopt(&key, address);
            }
        }
        None => {
            let annotated = service.annotations().get("metallb.io/loadBalancerIPs").cloned();
            pool.want(
                &key,
                spec.load_balancer_ip.or(annotated).and_then(|wish| wish.parse().ok()),
            );
        }
    }
}

async fn give(client: Client, settings: Settings, service: String, address: Ipv4Addr) {
    tokio::time::sleep(Duration::from_millis(settings.delay_ms)).await;
    let Some((namespace, name)) = service.split_once('/') else { return };
    let api: Api<Service> = Api::namespaced(client, namespace);
    // Retry for as long as the API server is away.
    loop {
        match write(&api, &settings, name, address).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return tracing::debug!(
                    service,
                    "an address could not be given: the Service is gone"
                );
            }
            Err(error) => {
                tracing::debug!(
                    %error, service,
                    "an address could not be given and is given again"
                )
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn write(
    api: &Api<Service>,
    settings: &Settings,
    name: &str,
    address: Ipv4Addr,
) -> kube::Result<Service> {
    if !settings.no_finalizer {
        let patch = json!({"metadata": {"finalizers": [FINALIZER]}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    let entry = if settings.as_hostname {
        json!({"hostname": format!("{}.simulated", address.to_string().replace('.', "-"))})
    } else {
        json!({"ip": address.to_string()})
    };
    let patch = json!({"status": {"loadBalancer": {"ingress": [entry]}}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_service_at_a_time_and_waiters_are_served_in_turn() {
        let mut pool = Pool::new(Ipv4Addr::new(127, 0, 1, 1), 1);
        pool.want("a", None);
        pool.want("b", None);
        pool.want("c", None);
        let (first, address) = pool.serve_next().expect("an address");
        assert_eq!((first.as_str(), address), ("a", Ipv4Addr::new(127, 0, 1, 1)));
        assert_eq!(pool.serve_next(), None);
        pool.give_back("b");
        pool.give_back("a");
        assert_eq!(pool.serve_next().map(|(service, _)| service), Some("c".to_owned()));
    }
}
