//! Which name is at which address. Pure.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use crate::docker::{Container, Policy, is_host_name, is_ours, swap};

/// A container that runs, and the one in whose network it lives.
pub(super) struct Member {
    pub(super) container: Container,
    pub(super) network: Option<Container>,
}

/// How names and addresses are chosen.
pub(super) struct Rules<'a> {
    pub(super) network: Option<&'a str>,
    /// The pattern of names.
    pub(super) name: &'a str,
    pub(super) port: Option<u16>,
    pub(super) only_healthy: bool,
    /// A name without a port is of no use.
    pub(super) needs_port: bool,
    pub(super) heeds_labels: bool,
}

/// Names and where they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    routes: BTreeMap<String, Route>,
    /// Who is left out, and why.
    pub(super) notes: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Route {
    address: IpAddr,
    port: Option<u16>,
    container: String,
    /// The container has the name by a label only.
    is_taken: bool,
}

impl Table {
    /// Lines for a hosts file.
    pub(super) fn lines(&self) -> Vec<String> {
        self.routes.iter().map(|(name, route)| format!("{} {name}", route.address)).collect()
    }

    /// Names and addresses.
    pub(super) fn addresses(&self) -> BTreeMap<String, String> {
        self.routes.iter().map(|(name, route)| (name.clone(), route.address.to_string())).collect()
    }

    /// Names and `address:port`, of those that have a port.
    pub(super) fn values(&self) -> BTreeMap<String, String> {
        let with_port = self.routes.iter().filter_map(|(name, route)| Some((name, route.address, route.port?)));
        with_port.map(|(name, address, port)| (name.clone(), SocketAddr::new(address, port).to_string())).collect()
    }
}

/// The address in an `address:port`.
pub(super) fn address_in(value: &str) -> &str {
    value.rsplit_once(':').map_or(value, |(address, _)| address.trim_matches(['[', ']']))
}

/// The name that a pattern makes; none, when it wants compose's words and there are none.
pub(super) fn filled(pattern: &str, name: &str, service: Option<&str>, project: Option<&str>) -> Option<String> {
    let mut filled = pattern.replace("{name}", name);
    for (place, value) in [("{service}", service), ("{project}", project)] {
        if filled.contains(place) {
            filled = filled.replace(place, value?);
        }
    }
    Some(filled.to_lowercase())
}

/// The table of these containers.
pub(super) fn of(members: &[Member], rules: &Rules<'_>) -> Table {
    let mut table = Table::default();
    for member in members {
        let container = &member.container;
        let name = container.name();
        // One that is about to take another's place, or has lost it, or was made for a moment.
        let steps_aside = [swap::beside(""), swap::aside("")].iter().any(|end| name.ends_with(end.as_str()));
        if steps_aside || is_ours(&container.labels()) {
            continue;
        }
        let is_ill = container.raw()["State"]["Health"]["Status"] == "unhealthy";
        if rules.only_healthy && is_ill {
            table.notes.push(format!("{name}: left out: it is unhealthy"));
            continue;
        }
        match route(member, rules, &mut table.notes) {
            Ok((host, route)) => table.add(host, route),
            Err(why) => table.notes.push(format!("{name}: left out: {why}")),
        }
    }
    table
}

impl Table {
    /// A name belongs to the container that is called so; else to the first that asks for it.
    fn add(&mut self, host: String, route: Route) {
        let Some(there) = self.routes.get(&host) else {
            self.routes.insert(host, route);
            return;
        };
        let (wins, loses) = if there.is_taken && !route.is_taken { (&route, there) } else { (there, &route) };
        self.notes.push(format!("{}: left out: `{host}` is the name of {}", loses.container, wins.container));
        if there.is_taken && !route.is_taken {
            self.routes.insert(host, route);
        }
    }
}

fn route(member: &Member, rules: &Rules<'_>, notes: &mut Vec<String>) -> Result<(String, Route), String> {
    let container = &member.container;
    let policy = if rules.heeds_labels { Policy::read(&container.labels()) } else { Policy::default() };
    let compose = container.compose();
    let own = policy.route_name.as_deref().unwrap_or(container.name());
    let host = filled(rules.name, own, compose.map(|of| of.service), compose.map(|of| of.project))
        .ok_or("it was not made by compose, and `name` wants a service or a project")?;
    if !is_host_name(&host) {
        return Err(format!("`{host}` cannot be a host's name"));
    }
    let wanted = policy.route_network.as_deref().or(rules.network);
    let project = compose.map(|of| of.project);
    let address = address(member.network.as_ref().unwrap_or(container), wanted, project)?;
    let port = match policy.route_port.or(rules.port) {
        Some(port) => Some(port),
        None => match exposed(container)[..] {
            [port] => Some(port),
            [] => None,
            _ => None,
        },
    };
    if rules.needs_port && port.is_none() {
        let ports = exposed(container);
        let has = if ports.is_empty() {
            "it exposes no port".to_owned()
        } else {
            format!("it exposes several ports, {}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))
        };
        notes.push(format!(
            "{}: not in Redis: {has}: write `port = …`, or the label `rusuban.route.port` where labels count",
            container.name()
        ));
    }
    let is_taken = policy.route_name.is_some();
    Ok((host, Route { address, port, container: container.name().to_owned(), is_taken }))
}

fn address(container: &Container, wanted: Option<&str>, project: Option<&str>) -> Result<IpAddr, String> {
    let raw = container.raw();
    let networks = raw["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    let networks: Vec<(&String, IpAddr)> = networks
        .filter_map(|(name, endpoint)| {
            let text = |key: &str| endpoint[key].as_str().filter(|address| !address.is_empty());
            let address = text("IPAddress").or_else(|| text("GlobalIPv6Address"))?;
            Some((name, address.parse().ok()?))
        })
        .collect();
    let names = || networks.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, &networks[..]) {
        (Some(wanted), _) => {
            // Compose calls the network `web` of a project `shop` `shop_web`.
            let of_project = project.map(|project| format!("{project}_{wanted}"));
            let is_it = |name: &str| name == wanted || of_project.as_deref() == Some(name);
            let found = networks.iter().find(|(name, _)| is_it(name));
            found.map(|(_, address)| *address).ok_or_else(|| match names().as_str() {
                "" => format!("it has no address in the network {wanted}"),
                names => format!("it is not in the network {wanted}, but in {names}"),
            })
        }
        (None, [(_, address)]) => Ok(*address),
        (None, []) if raw["HostConfig"]["NetworkMode"] == "host" => {
            Err("it uses the host's own network and has no address of its own".to_owned())
        }
        (None, []) => Err("it has no address".to_owned()),
        (None, _) => Err(format!(
            "it is in several networks, {}: write `network = \"…\"`, or the label `rusuban.route.network` where labels count",
            names()
        )),
    }
}

/// The TCP ports that it exposes.
fn exposed(container: &Container) -> Vec<u16> {
    let ports = container.raw()["Config"]["ExposedPorts"].as_object().into_iter().flatten();
    let mut ports: Vec<u16> = ports.filter_map(|(port, _)| port.strip_suffix("/tcp")?.parse().ok()).collect();
    ports.sort_unstable();
    ports
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(name: &str, networks: Value, more: Value) -> Member {
        let mut raw = json!({
            "Id": format!("{name:0<64}"), "Name": format!("/{name}"), "State": { "Status": "running" },
            "NetworkSettings": { "Networks": networks }, "Config": {},
        });
        for (key, value) in more.as_object().unwrap() {
            raw[key] = value.clone();
        }
        Member { container: Container::of(raw), network: None }
    }

    fn at(address: &str) -> Value {
        json!({ "IPAddress": address, "GlobalIPv6Address": "" })
    }

    fn rules(name: &str) -> Rules<'_> {
        Rules { network: None, name, port: None, only_healthy: false, needs_port: false, heeds_labels: true }
    }

    #[test]
    fn the_right_network_the_right_port_and_a_name_for_each() {
        let web = json!({ "Config": { "ExposedPorts": { "80/tcp": {}, "53/udp": {} } } });
        let compose = json!({ "Config": { "Labels": {
            "com.docker.compose.project": "shop", "com.docker.compose.service": "api",
        }, "ExposedPorts": { "1/tcp": {}, "2/tcp": {} } } });
        let six = json!({ "n": { "IPAddress": "", "GlobalIPv6Address": "fd00::2" } });
        let members = [
            container("Blog", json!({ "bridge": at("172.17.0.2") }), web.clone()),
            container("both", json!({ "web": at("10.0.0.2"), "back": at("10.1.0.2") }), json!({})),
            container("shop-api-1", json!({ "shop_web": at("10.2.0.2"), "back": at("10.1.0.3") }), compose),
            container("six", six, web),
            container("none", json!({}), json!({ "HostConfig": { "NetworkMode": "host" } })),
            container("blog-rusuban-new", json!({ "bridge": at("172.17.0.9") }), json!({})),
        ];
        let table = of(&members, &rules("{name}.home"));
        assert_eq!(table.lines(), ["172.17.0.2 blog.home", "fd00::2 six.home"]);
        assert_eq!(table.values()["six.home"], "[fd00::2]:80");
        assert_eq!(address_in(&table.values()["six.home"]), "fd00::2");
        assert_eq!(table.notes.len(), 3, "{:?}", table.notes);
        assert!(table.notes[0].starts_with("both: left out: it is in several networks, web, back: write"));
        let table = of(&members, &Rules { network: Some("web"), needs_port: true, ..rules("{name}") });
        assert_eq!(table.lines(), ["10.0.0.2 both", "10.2.0.2 shop-api-1"]);
        assert!(
            table.notes.iter().any(|note| note.starts_with("shop-api-1: not in Redis: it exposes several ports, 1, 2"))
        );
        let table = of(&members, &Rules { network: Some("back"), port: Some(8080), ..rules("{service}.{project}") });
        assert_eq!(table.values(), [("api.shop".to_owned(), "10.1.0.3:8080".to_owned())].into());
    }

    #[test]
    fn a_label_may_name_a_container_but_not_take_the_name_of_another() {
        let labelled = |name: &str, address: &str, labels: Value| {
            container(name, json!({ "bridge": at(address) }), json!({ "Config": { "Labels": labels } }))
        };
        let members = [
            labelled("a-thief", "10.0.0.1", json!({ "rusuban.route.name": "bank" })),
            labelled("bank", "10.0.0.2", json!({})),
            labelled("c", "10.0.0.3", json!({ "rusuban.route.name": "shop", "rusuban.route.port": "81" })),
            labelled("d", "10.0.0.4", json!({ "rusuban.route.name": "shop" })),
        ];
        let table = of(&members, &rules("{name}.home"));
        assert_eq!(table.lines(), ["10.0.0.2 bank.home", "10.0.0.3 shop.home"]);
        assert_eq!(table.values()["shop.home"], "10.0.0.3:81");
        assert_eq!(
            table.notes,
            ["a-thief: left out: `bank.home` is the name of bank", "d: left out: `shop.home` is the name of c"]
        );
        let table = of(&members, &Rules { heeds_labels: false, ..rules("{name}") });
        assert_eq!(table.addresses().into_keys().collect::<Vec<_>>(), ["a-thief", "bank", "c", "d"]);
    }

    #[test]
    fn one_that_lives_in_anothers_network_has_its_address() {
        let mut member = container("tunnelled", json!({}), json!({ "Config": { "ExposedPorts": { "80/tcp": {} } } }));
        member.network = Some(container("vpn", json!({ "bridge": at("172.17.0.7") }), json!({})).container);
        assert_eq!(of(&[member], &rules("{name}")).values()["tunnelled"], "172.17.0.7:80");
    }
}
