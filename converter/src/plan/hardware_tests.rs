// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden plans of servers with their hardware: cards and bonds, names of disks, services, labels.

use disk::filesystem::Filesystem;
use image_library::machine::MachineDescription;
use rstest::rstest;

use crate::phony::{
    self, PhonyGuest, centos_6, debian_on_smart_array, dell_with_agents, ethernet, lvm_filtered,
    machine, rhel_5, rhel_7_with_teams, rhel_9, sles_10, sles_11, sles_15, ubuntu_bionic,
    ubuntu_jammy, ubuntu_trusty,
};
use crate::plan::{Change, Edit, Plan, PlanOptions, Verdict, plan};

fn options() -> PlanOptions {
    PlanOptions {
        serial_console: false,
        ..PlanOptions::new("server")
    }
}

fn planned(guest: &PhonyGuest) -> Plan {
    plan(&guest.inspect(), &options())
}

fn planned_on(guest: &PhonyGuest, machine: &MachineDescription) -> Plan {
    plan(&guest.inspect_with(Some(machine)), &options())
}

fn codes(plan: &Plan) -> Vec<&str> {
    plan.findings.iter().map(|f| f.code.as_str()).collect()
}

fn paths(plan: &Plan) -> Vec<&str> {
    let edits = plan.edits.iter();
    edits.map(|edit| edit.place.guest_path.as_str()).collect()
}

#[rstest]
#[case("rhel_5", rhel_5())]
#[case("centos_6", centos_6())]
#[case("rhel_7_with_teams", rhel_7_with_teams())]
#[case("rhel_9", rhel_9())]
#[case("sles_10", sles_10())]
#[case("sles_11", sles_11())]
#[case("sles_15", sles_15())]
#[case("ubuntu_trusty", ubuntu_trusty())]
#[case("ubuntu_bionic", ubuntu_bionic())]
#[case("ubuntu_jammy", ubuntu_jammy())]
#[case("debian_on_smart_array", debian_on_smart_array())]
#[case("lvm_filtered", lvm_filtered())]
#[case("dell_with_agents", dell_with_agents())]
fn servers_keep_their_names(#[case] name: &str, #[case] guest: PhonyGuest) {
    let plan = planned(&guest);
    insta::assert_snapshot!(name, plan);
    guest.apply(&plan).unwrap();
    let again = planned(&guest);
    assert_eq!(again.edits, [], "applied twice is applied once");
    assert_eq!(again.verdict, Verdict::Ready);
    assert_eq!(again.vm, plan.vm);
}

#[test]
fn members_of_a_bond_that_share_an_address_on_the_machine_get_one_each() {
    let guest = ubuntu_bionic();
    let mut machine = machine("app");
    machine.interfaces = vec![
        ethernet("eno1", "3c:ec:ef:00:00:01"),
        ethernet("eno2", "3c:ec:ef:00:00:01"),
    ];
    let plan = planned_on(&guest, &machine);
    let macs: Vec<&str> = plan.vm.nics.iter().map(|nic| nic.mac.as_str()).collect();
    assert_eq!(macs[0], "3c:ec:ef:00:00:01");
    assert!(macs[1].starts_with("02:"), "{macs:?}");
    assert!(codes(&plan).contains(&"network.mac.shared"));
}

#[test]
fn what_a_file_says_counts_where_the_machine_says_the_same_of_two_cards() {
    let guest = rhel_5();
    let mut machine = machine("erp01");
    machine.interfaces = vec![
        ethernet("eth0", "00:1e:c9:00:00:02"),
        ethernet("eth1", "00:1e:c9:00:00:02"),
    ];
    let plan = planned_on(&guest, &machine);
    let macs: Vec<&str> = plan.vm.nics.iter().map(|nic| nic.mac.as_str()).collect();
    assert_eq!(macs, ["00:1e:c9:00:00:01", "00:1e:c9:00:00:02"]);
}

#[test]
fn a_card_that_is_chosen_by_its_mac_address_has_the_name_that_it_had() {
    let mut machine = machine("app");
    machine.interfaces = vec![ethernet("enp1s0f1", "3c:ec:ef:00:00:03")];
    let plan = planned_on(&rhel_9(), &machine);
    let names: Vec<&str> = plan.vm.nics.iter().map(|nic| nic.name.as_str()).collect();
    assert_eq!(names, ["eno1", "enp1s0f1", "ens2f0"]);
    assert!(paths(&plan).contains(&"/etc/systemd/network/10-relevo-enp1s0f1.link"));
}

#[test]
fn a_rule_of_udev_that_names_the_card_otherwise_is_answered_by_a_rule() {
    let guest = sles_15();
    let mut machine = machine("sap");
    machine.interfaces = vec![ethernet("eth1", "00:1e:67:00:00:01")];
    let plan = planned_on(&guest, &machine);
    assert!(
        paths(&plan).contains(&"/etc/udev/rules.d/71-relevo-eth1-net.rules"),
        "{:?}",
        paths(&plan)
    );
}

#[test]
fn a_guest_with_the_kernels_own_names_has_its_first_card_called_so() {
    let guest = phony::server("", "");
    let mut machine = machine("x");
    machine.os.kernel_command_line = "ro net.ifnames=0 biosdevname=0".to_owned();
    assert_eq!(planned_on(&guest, &machine).vm.nics[0].name, "eth0");
    assert_eq!(planned(&guest).vm.nics[0].name, "net0");
}

#[test]
fn services_stay_on_where_that_is_asked() {
    let options = PlanOptions {
        keep_services: true,
        ..options()
    };
    let plan = plan(&dell_with_agents().inspect(), &options);
    let is_initramfs = |edit: &Edit| matches!(edit.change, Change::AppendToInitramfs(_));
    assert!(plan.edits.iter().all(is_initramfs), "{:?}", plan.edits);
    assert!(!codes(&plan).contains(&"services.switched-off"));
    assert!(codes(&plan).contains(&"services.hardware"));
}

#[test]
fn services_of_system_v_without_systemd_are_named_only() {
    let plan = planned(&sles_11());
    assert!(codes(&plan).contains(&"services.hardware"));
    assert!(!codes(&plan).contains(&"services.switched-off"));
}

#[test]
fn a_reservation_for_crash_dumps_that_takes_much_of_the_memory_is_told() {
    let mut machine = machine("x");
    machine.os.kernel_command_line = "ro crashkernel=2G,high".to_owned();
    let plan = planned_on(&lvm_filtered(), &machine);
    assert!(codes(&plan).contains(&"kernel.crashkernel.large"));
    machine.os.kernel_command_line = "ro crashkernel=256M".to_owned();
    let plan = planned_on(&lvm_filtered(), &machine);
    assert!(!codes(&plan).contains(&"kernel.crashkernel.large"));
}

#[test]
fn a_physical_volume_that_the_server_left_out_by_name_stays_out_and_is_told() {
    let mut guest = lvm_filtered();
    guest.disks[0].name = Some("sdb".to_owned());
    guest.partition(1).file(
        "/etc/lvm/lvm.conf",
        "devices { filter = [ \"r|^/dev/sdb|\", \"a|/dev/md|\", \"r|.*|\" ] }\n",
    );
    let plan = planned(&guest);
    assert!(codes(&plan).contains(&"lvm.filter.rejects-by-name"));
    assert!(!paths(&plan).contains(&"/etc/lvm/lvm.conf"));
}

#[test]
fn a_list_of_devices_is_switched_off_where_lvm_has_no_configuration() {
    let guest = rhel_9();
    guest.partition(1).take("/etc/lvm/lvm.conf");
    let plan = planned(&guest);
    guest.apply(&plan).unwrap();
    assert_eq!(
        guest.text(1, "/etc/lvm/lvm.conf"),
        "devices {\n\tuse_devicesfile = 0\n}\n"
    );
    assert_eq!(planned(&guest).edits, []);
}

#[test]
fn new_files_are_labelled_as_their_directory_is() {
    let guest = rhel_7_with_teams();
    let root = guest.partition(1);
    root.label("/etc/passwd", "system_u:object_r:passwd_file_t:s0");
    root.label("/etc/udev", "system_u:object_r:etc_t:s0");
    let plan = planned(&guest);
    assert!(!codes(&plan).contains(&"selinux.relabel"));
    guest.apply(&plan).unwrap();
    let label = |path: &str| root.selinux_context(path).unwrap();
    let expected = Some("system_u:object_r:etc_t:s0".to_owned());
    assert_eq!(
        label("/etc/udev/rules.d"),
        expected,
        "made with the first rule"
    );
    assert_eq!(
        label("/etc/udev/rules.d/71-relevo-p1p1-net.rules"),
        expected
    );
}

#[test]
fn where_no_label_can_be_read_the_guest_is_asked_to_label_all_files() {
    let guest = rhel_7_with_teams();
    let plan = planned(&guest);
    assert!(codes(&plan).contains(&"selinux.relabel"));
    assert!(paths(&plan).contains(&"/.autorelabel"));
    guest
        .partition(1)
        .file("/etc/selinux/config", "SELINUX=disabled\n");
    let plan = planned(&guest);
    assert!(!codes(&plan).contains(&"selinux.relabel"));
    assert!(!paths(&plan).contains(&"/.autorelabel"));
}

#[test]
fn every_code_of_these_plans_is_documented() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks/docs/findings.md");
    let page = std::fs::read_to_string(page).unwrap();
    let guests = [
        rhel_5(),
        rhel_7_with_teams(),
        rhel_9(),
        sles_10(),
        ubuntu_jammy(),
        debian_on_smart_array(),
        dell_with_agents(),
    ];
    for guest in guests {
        for finding in planned(&guest).findings {
            assert!(
                page.contains(&format!("`{}`", finding.code)),
                "{}",
                finding.code
            );
        }
    }
}
