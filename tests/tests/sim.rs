//! Every case on the simulator with one broker, on a few seeds.

fn main() {
    conformance::trials::on_simulator(&conformance::column::SIM);
}
