//! A router that speaks UPnP: a description, and an answer to the one question that is asked.
use std::sync::{Arc, Mutex};

use super::http::{Reply, Seen, Server, answer};

const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

/// Its outer address is what `outer` says.
pub(crate) async fn start(outer: Arc<Mutex<String>>) -> Server {
    Server::start(move |seen| reply(seen, &outer.lock().unwrap())).await
}

fn reply(seen: &Seen, outer: &str) -> Reply {
    let xml = "content-type: text/xml; charset=\"utf-8\"\r\n";
    match seen.line.as_str() {
        "GET /rootDesc.xml HTTP/1.1" => answer(
            "200 OK",
            xml,
            format!(
                "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device><deviceList><device><deviceList><device>\
                 <serviceList><service><serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>\
                 <controlURL>/ctl/IPConn</controlURL></service></serviceList></device></deviceList></device></deviceList></device></root>"
            ),
        ),
        "POST /ctl/IPConn HTTP/1.1" => {
            let asked = seen.text();
            let is_right = seen.header("soapaction") == Some(&format!("\"{SERVICE}#GetExternalIPAddress\""))
                && seen.header("content-type").is_some_and(|kind| kind.starts_with("text/xml"))
                && asked.contains("<u:GetExternalIPAddress")
                && asked.contains(SERVICE);
            if !is_right {
                return answer("500 Internal Server Error", xml, "<s:Envelope><errorCode>401</errorCode></s:Envelope>");
            }
            answer(
                "200 OK",
                xml,
                format!(
                    "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
                     <u:GetExternalIPAddressResponse xmlns:u=\"{SERVICE}\"><NewExternalIPAddress>{outer}</NewExternalIPAddress>\
                     </u:GetExternalIPAddressResponse></s:Body></s:Envelope>"
                ),
            )
        }
        _ => answer("404 Not Found", "", ""),
    }
}
