//! Every case on the simulator with three brokers, on a few seeds.

fn main() {
    conformance::trials::on_simulator(&conformance::column::SIM3);
}
