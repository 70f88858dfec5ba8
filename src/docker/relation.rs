//! Which containers need which others, and in which order they are stopped.
use super::container::Container;

/// What compose says of a container, in labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compose<'a> {
    /// The project.
    pub project: &'a str,
    /// The service in it.
    pub service: &'a str,
    /// Which of the service's containers.
    pub number: &'a str,
}

impl<'a> Compose<'a> {
    /// From labels; none of a container that compose did not make, or made for a moment (`docker compose run`).
    pub fn read(label: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let label = |name: &str| label(&format!("com.docker.compose.{name}"));
        if label("oneoff").is_some_and(|said| said.eq_ignore_ascii_case("true")) {
            return None;
        }
        let number = label("container-number").unwrap_or("1");
        Some(Self { project: label("project")?, service: label("service")?, number })
    }
}

impl Container {
    /// What compose says of it.
    #[must_use]
    pub fn compose(&self) -> Option<Compose<'_>> {
        Compose::read(|name| self.label(name))
    }

    /// The container in whose network it lives, by name or id.
    #[must_use]
    pub fn lives_in_network_of(&self) -> Option<&str> {
        self.raw()["HostConfig"]["NetworkMode"].as_str()?.strip_prefix("container:")
    }

    /// Whether `text` is its name, its id, or the beginning of its id.
    #[must_use]
    pub fn is_called(&self, text: &str) -> bool {
        text == self.name() || (text.len() >= 12 && self.id().starts_with(text))
    }

    /// Whether it needs the other one to run: by compose's `depends_on`, by its network, or by a link.
    #[must_use]
    pub fn needs(&self, other: &Self) -> bool {
        let links = self.raw()["HostConfig"]["Links"].as_array().into_iter().flatten();
        let mut linked = links.filter_map(|link| link.as_str()?.split(':').next());
        self.compose_condition(other).is_some()
            || self.lives_in_network_of().is_some_and(|name| other.is_called(name))
            || linked.any(|name| other.is_called(name.trim_start_matches('/')))
    }

    /// Whether it is to be started only when the other one is healthy.
    #[must_use]
    pub fn needs_healthy(&self, other: &Self) -> bool {
        self.compose_condition(other) == Some("service_healthy")
    }

    /// Whether its own health check says that it is well; one without a check is as soon as it runs.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let health = self.raw()["State"]["Health"]["Status"].as_str();
        self.state().is_up() && matches!(health, None | Some("healthy" | "none" | ""))
    }

    /// What `depends_on` wants of the other one, in compose's words.
    fn compose_condition(&self, other: &Self) -> Option<&str> {
        let (own, other) = (self.compose()?, other.compose()?);
        let services = self.label("com.docker.compose.depends_on")?;
        services.split(',').find_map(|service| {
            let mut parts = service.split(':');
            let is_it = own.project == other.project && parts.next() == Some(other.service);
            is_it.then(|| parts.next().unwrap_or_default())
        })
    }
}

/// The order in which containers are stopped: whoever needs another goes before it. Started in the reverse order, each finds what
/// it needs. Where they need each other in a circle, names decide.
#[must_use]
pub fn dependents_first(mut containers: Vec<Container>) -> Vec<Container> {
    containers.sort_by(|one, other| one.name().cmp(other.name()));
    let mut ordered = Vec::with_capacity(containers.len());
    while !containers.is_empty() {
        let is_free = |one: &Container| !containers.iter().any(|other| other.id() != one.id() && other.needs(one));
        let next = containers.iter().position(is_free).unwrap_or(0);
        ordered.push(containers.remove(next));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(name: &str, depends_on: &str, host: serde_json::Value) -> Container {
        let labels = json!({
            "com.docker.compose.project": "p",
            "com.docker.compose.service": name,
            "com.docker.compose.depends_on": depends_on,
        });
        let id = format!("{name:0<64}");
        Container::of(
            json!({ "Id": id, "Name": format!("/{name}"), "Config": { "Labels": labels }, "HostConfig": host }),
        )
    }

    fn ordered(containers: Vec<Container>) -> String {
        let ordered = dependents_first(containers);
        ordered.iter().map(Container::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn whoever_needs_another_is_stopped_before_it() {
        let web = container("web", "db:service_started:false,cache:service_healthy:true", json!({}));
        let [db, cache] = ["db", "cache"].map(|name| container(name, "", json!({})));
        assert_eq!(ordered(vec![db.clone(), cache.clone(), web.clone()]), "web cache db");
        assert_eq!([&db, &cache].map(|other| web.needs_healthy(other)), [false, true]);
        let proxy = container("a-proxy", "", json!({ "Links": ["/web:/a-proxy/web"] }));
        assert_eq!(ordered(vec![db.clone(), web.clone(), proxy]), "a-proxy web db");
        let tunnelled = container("x", "", json!({ "NetworkMode": format!("container:{}", db.id()) }));
        assert_eq!(ordered(vec![db.clone(), tunnelled]), "x db");
        // Of another project.
        let mut other = db.raw().clone();
        other["Config"]["Labels"]["com.docker.compose.project"] = "q".into();
        assert_eq!(ordered(vec![web, Container::of(other)]), "db web");
    }

    #[test]
    fn a_circle_ends() {
        let [a, b, c] = [("a", "b:x"), ("b", "c:x"), ("c", "a:x")].map(|(name, on)| container(name, on, json!({})));
        assert_eq!(ordered(vec![c, b, a]), "a b c");
    }
}
