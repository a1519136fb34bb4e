//! Every case on a real Kafka with three brokers, which `BUS_TEST_KAFKA3=host:port,…` names.

fn main() {
    conformance::trials::on_kafka(&conformance::column::KAFKA3);
}
