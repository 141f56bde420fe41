// SPDX-License-Identifier: MIT OR Apache-2.0
//! Services that belong to a physical server's hardware: a table of names, of what each does in a
//! virtual machine, and of what becomes of it there.

/// What becomes of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It disturbs or only fails, and is switched off in virtual machines.
    Off,
    /// It is harmless, or somebody may need it: it is named.
    Named,
}

/// Services of one kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// Their names; `*` at the end stands for any end.
    pub(crate) names: &'static [&'static str],
    /// What they are, and what they do where the hardware is missing.
    pub(crate) reason: &'static str,
    pub(crate) fate: Fate,
}

/// A service counts for the first kind that names it.
pub(crate) const KINDS: [Kind; 19] = [
    Kind {
        names: &[
            "watchdog",
            "wd_keepalive",
            "watchdog-mux",
            "hp-asrd",
            "bmc-watchdog",
        ],
        reason: "a watchdog of the hardware: it restarts a machine whose sensors do not answer",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "multipathd",
            "multipath-tools*",
            "multipathd-boot",
            "boot.multipath",
            "PowerPath",
        ],
        reason: "multipathing: it waits for paths, and may take a virtual disk for one",
        fate: Fate::Off,
    },
    Kind {
        names: &["kudzu"],
        reason: "asks on the console about hardware that is gone, and removes its configuration",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "hp-*",
            "hpasm*",
            "hpsmhd",
            "hpssa*",
            "hpvcd",
            "hprsm",
            "amsd",
            "amsd_rev",
            "ahslog",
            "smad",
            "smad_rev",
            "cpqFca",
            "cpqIde",
            "cpqScsi",
            "cpqiScsi",
            "mr_cpqScsi",
            "cmafdtnpeer*",
        ],
        reason: "agents of HPE ProLiant: they look for iLO and Smart Array",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "dataeng",
            "dsm_*",
            "srvadmin-*",
            "instsvcdrv",
            "dcismeng",
            "dcismdbg",
            "mptctl",
            "omawsd",
            "racsvc",
        ],
        reason: "agents of Dell OpenManage: they look for iDRAC and PERC, for minutes",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "srvmagt*",
            "eecd*",
            "sv_*",
            "SVRemoteConnector",
            "tier1slp",
            "dirserver",
            "immagent",
            "superdoctor*",
            "sd5",
            "snmpagent_ibm",
        ],
        reason: "agents of other makers' servers: they look for a management controller",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "ipmi",
            "ipmi*",
            "openipmi",
            "OpenIPMI",
            "freeipmi-*",
            "bmc-*",
            "ipmiseld",
        ],
        reason: "IPMI: there is no management controller",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "lsi_*",
            "lsa",
            "megaraid*",
            "megaclisas*",
            "mrmonitor",
            "msm_profile",
            "MSM_*",
            "mrmon*",
            "vivaldiframework*",
            "mpt-status*",
            "aacraid-status*",
            "cciss-vol-status*",
            "stor_agent",
            "arcconf*",
            "3dm2",
            "3w-*",
            "tw_cli",
            "twa*",
            "hpraid*",
            "raid-agent*",
        ],
        reason: "tools of a RAID controller: there is none",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "smartd",
            "smartmontools",
            "hddtemp",
            "nvmefc-*",
            "ndctl-monitor",
        ],
        reason: "watches the health of physical disks",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "lm_sensors",
            "lm-sensors",
            "sensord",
            "fancontrol",
            "thermald",
            "thinkfan",
            "i8k*",
        ],
        reason: "sensors and fans: there are none",
        fate: Fate::Off,
    },
    Kind {
        names: &["mcelog*", "mcelogd", "edac*"],
        reason: "errors of processor and memory: the host sees them",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "cpuspeed",
            "cpufreqd",
            "cpufrequtils",
            "loadcpufreq",
            "cpupower",
            "powertop",
        ],
        reason: "the processor's clock: the host sets it",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "rdma",
            "openibd",
            "opensm*",
            "ibacm",
            "srp_daemon",
            "srpd",
            "iwpmd",
            "mlnx*",
            "mst",
        ],
        reason: "InfiniBand: there is none",
        fate: Fate::Off,
    },
    Kind {
        names: &[
            "fcoe",
            "fcoe-utils",
            "iscsiuio",
            "bnx2id",
            "elx*",
            "qlremote",
            "qlogic*",
            "hbanyware",
        ],
        reason: "host bus adapters: there are none",
        fate: Fate::Off,
    },
    Kind {
        names: &["nvidia-*", "dcgm*", "nvsm*", "rocm*", "xpum*"],
        reason: "graphics processors: there are none",
        fate: Fate::Off,
    },
    Kind {
        names: &["iscsi", "iscsid", "open-iscsi", "nvmf-*", "nvme-*"],
        reason: "disks of the network: they stay, where the virtual machine's network reaches them",
        fate: Fate::Named,
    },
    Kind {
        names: &[
            "lldpad",
            "lldpd",
            "microcode*",
            "intel-microcode",
            "amd64-microcode",
        ],
        reason: "talks to hardware, and does nothing where that is missing",
        fate: Fate::Named,
    },
    Kind {
        names: &[
            "ksm",
            "ksmtuned",
            "numad",
            "rngd",
            "rng-tools*",
            "rasdaemon",
        ],
        reason: "works in a virtual machine too, with less use",
        fate: Fate::Named,
    },
    Kind {
        names: &["tcsd", "tpm2-abrmd", "trousers"],
        reason: "a TPM: keys that are bound to the server's own do not open here",
        fate: Fate::Named,
    },
];

/// The kind that a service is of.
pub(crate) fn kind_of(service: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| {
        kind.names.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => service.starts_with(start),
            None => service == *name,
        })
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("watchdog", Some(Fate::Off))]
    #[case("bmc-watchdog", Some(Fate::Off))]
    #[case("dsm_sa_datamgrd", Some(Fate::Off))]
    #[case("hp-health", Some(Fate::Off))]
    #[case("ipmievd", Some(Fate::Off))]
    #[case("iscsid", Some(Fate::Named))]
    #[case("rasdaemon", Some(Fate::Named))]
    #[case("mdmonitor", None)]
    #[case("lvm2-monitor", None)]
    #[case("irqbalance", None)]
    #[case("ssh", None)]
    #[case("libvirtd", None)]
    fn services_have_their_fate(#[case] service: &str, #[case] fate: Option<Fate>) {
        assert_eq!(kind_of(service).map(|kind| kind.fate), fate);
    }

    #[test]
    fn no_pattern_takes_what_every_server_has() {
        let common = [
            "NetworkManager",
            "network",
            "networking",
            "sshd",
            "ssh",
            "crond",
            "cron",
            "rsyslog",
            "syslog",
            "systemd-networkd",
            "systemd-resolved",
            "chronyd",
            "ntpd",
            "ntp",
            "auditd",
            "firewalld",
            "iptables",
            "postfix",
            "mysql",
            "mariadb",
            "postgresql",
            "httpd",
            "apache2",
            "nginx",
            "docker",
            "kdump",
            "kdump-tools",
            "irqbalance",
            "tuned",
            "mdadm",
            "mdmonitor",
            "lvm2-lvmpolld",
            "lvm2-monitor",
            "nfs",
            "nfs-server",
            "rpcbind",
            "snmpd",
            "zabbix-agent",
            "haveged",
            "acpid",
            "atd",
            "dbus",
            "udev",
            "sysstat",
            "snapd",
            "smb",
            "sddm",
            "zfs-mount",
            "selinux-autorelabel-mark",
            "import-state",
            "dnsmasq",
            "dsmcad",
            "imapd",
            "immich",
        ];
        for service in common {
            assert!(kind_of(service).is_none(), "{service}");
        }
    }
}
