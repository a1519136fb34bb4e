//! Every case on a real Kafka with one broker, which `BUS_TEST_KAFKA=host:port` names.

fn main() {
    conformance::trials::on_kafka(&conformance::column::KAFKA);
}
