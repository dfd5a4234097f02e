#include "dispatch/predictor.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>

#include "formats/gguf/gguf.h"
#include "golden.h"
#include "model/decoder.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using testing::is_ok;

PredictorRates some_rates() {
  PredictorRates rates;
  rates.cpu = {40e9, 200e9, 2e-6};
  rates.device = {400e9, 4e12, 5e-6};
  rates.link_bytes_per_second = 12e9;
  rates.link_latency_seconds = 10e-6;
  return rates;
}

// A product of an [n,4096] q4_k matrix with t tokens.
Work product(double n, double t, Processor processor = Processor::kCpu) {
  Work work;
  work.processor = processor;
  work.type = DType::kQ4_K;
  work.bytes = n * 4096 * 144 / 256;
  work.multiply_adds = n * 4096 * t;
  return work;
}

// What a machine that is unlike its description would take.
double real_seconds(const Work& work) {
  const bool device = work.processor == Processor::kDevice;
  const double bandwidth = device ? 150e9 : 17e9, peak = device ? 30e12 : 70e9;
  return std::max(work.bytes / bandwidth, work.multiply_adds / peak) + (device ? 20e-6 : 30e-6);
}

TEST(Predictor, BeginsWithTheBound) {
  const Predictor predictor(some_rates());
  const Work memory_bound = product(4096, 1), compute_bound = product(4096, 64);
  EXPECT_DOUBLE_EQ(predictor.seconds(memory_bound), memory_bound.bytes / 40e9 + 2e-6);
  EXPECT_DOUBLE_EQ(predictor.seconds(compute_bound), compute_bound.multiply_adds / 200e9 + 2e-6);
  EXPECT_DOUBLE_EQ(predictor.seconds(product(4096, 1, Processor::kDevice)),
                   memory_bound.bytes / 400e9 + 5e-6);
  EXPECT_DOUBLE_EQ(predictor.transfer_seconds(LinkDirection::kUp, 12e6), 1e-3 + 10e-6);
  EXPECT_EQ(predictor.n_observed(memory_bound), 0u);
}

TEST(Predictor, ConvergesToARealMachine) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> noise(0.97, 1.03);
  double worst = 0;
  for (const Processor processor : {Processor::kCpu, Processor::kDevice}) {
    for (const double t : {1.0, 8.0, 64.0}) {
      Predictor predictor(some_rates());
      const double sizes[] = {512, 1024, 4096, 11008, 14336};
      for (int i = 0; i < 50; ++i) {
        const Work work = product(sizes[random() % 5], t, processor);
        predictor.observe(work, real_seconds(work) * noise(random));
      }
      for (const double n : {512.0, 2048.0, 4096.0, 14336.0, 28672.0}) {
        const Work work = product(n, t, processor);
        const double error = std::abs(predictor.seconds(work) / real_seconds(work) - 1);
        worst = std::max(worst, error);
        EXPECT_LT(error, 0.05) << n << " " << t;
      }
    }
  }
  std::printf("worst error after 50 observations: %.1f %%\n", 100 * worst);
}

TEST(Predictor, ConvergesWhenPromptsAndDecodingAlternate) {
  std::mt19937 random(2);
  std::uniform_real_distribution<double> noise(0.97, 1.03);
  Predictor predictor(some_rates());
  const double tokens[] = {1, 1, 1, 64, 128};
  const double sizes[] = {512, 4096, 14336};
  for (int i = 0; i < 50; ++i) {
    const Work work = product(sizes[random() % 3], tokens[random() % 5]);
    predictor.observe(work, real_seconds(work) * noise(random));
  }
  for (const double t : {1.0, 64.0, 128.0}) {
    for (const double n : sizes) {
      const Work work = product(n, t);
      EXPECT_LT(std::abs(predictor.seconds(work) / real_seconds(work) - 1), 0.05) << n << " " << t;
    }
  }
}

TEST(Predictor, OneOutlierDoesLittle) {
  std::mt19937 random(3);
  for (const bool one_size : {true, false}) {
    for (const double factor : {100.0, 0.01}) {
      for (const int before : {4, 10, 50}) {
        Predictor predictor(some_rates());
        const double sizes[] = {512, 1024, 4096, 14336};
        const auto any = [&] { return product(one_size ? 4096 : sizes[random() % 4], 1); };
        for (int i = 0; i < before; ++i) {
          const Work work = any();
          predictor.observe(work, real_seconds(work));
        }
        for (const double n : sizes) {
          Predictor hit = predictor;
          const double expected = hit.seconds(product(4096, 1));
          const Work outlier = product(one_size ? 4096 : n, 1);
          hit.observe(outlier, real_seconds(outlier) * factor);
          const double moved = std::abs(hit.seconds(product(4096, 1)) / expected - 1);
          EXPECT_LT(moved, before < 10 ? 0.15 : 0.10) << one_size << factor << before << " " << n;
        }
      }
    }
  }
}

TEST(Predictor, SlowFirstRunsAreForgotten) {
  Predictor predictor(some_rates());
  const Work work = product(4096, 1);
  predictor.observe(work, 100 * real_seconds(work));
  predictor.observe(work, 10 * real_seconds(work));
  predictor.observe(work, real_seconds(work));
  EXPECT_NEAR(predictor.seconds(work) / real_seconds(work), 1, 1e-9);
}

TEST(Predictor, FollowsAMachineThatBecomesSlower) {
  Predictor predictor(some_rates());
  const Work work = product(4096, 1);
  for (int i = 0; i < 100; ++i) predictor.observe(work, real_seconds(work));
  for (int i = 0; i < 60; ++i) predictor.observe(work, 3 * real_seconds(work));
  EXPECT_NEAR(predictor.seconds(work) / (3 * real_seconds(work)), 1, 0.05);
}

TEST(Predictor, WhatWasNotSeenUsesWhatWasSeenOfItsKind) {
  Predictor predictor(some_rates());
  for (int i = 0; i < 10; ++i)
    predictor.observe(product(4096, 1), 4 * product(4096, 1).bytes / 40e9);
  EXPECT_NEAR(predictor.seconds(product(4096, 64)), 4 * product(4096, 64).multiply_adds / 200e9,
              1e-9);
  // But nothing of other types, kinds and processors.
  Work other = product(4096, 1);
  other.type = DType::kQ8_0;
  EXPECT_EQ(predictor.n_observed(other), 0u);
  other = product(4096, 1, Processor::kDevice);
  EXPECT_EQ(predictor.n_observed(other), 0u);
  other = product(4096, 1);
  other.kind = OpKind::kExpertMatmul;
  EXPECT_EQ(predictor.n_observed(other), 0u);
}

TEST(Predictor, NeverPredictsLessThanNothing) {
  std::mt19937 random(4);
  Predictor predictor(some_rates());
  for (int i = 0; i < 2000; ++i) {
    const Work work = product(1 << (random() % 15), 1 << (random() % 8));
    predictor.observe(work, std::ldexp(1e-7, static_cast<int>(random() % 20)));
    const double seconds = predictor.seconds(product(1 << (random() % 20), 1 << (random() % 8)));
    ASSERT_TRUE(seconds > 0 && std::isfinite(seconds));
  }
  for (const double wrong : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    const double before = predictor.seconds(product(4096, 1));
    predictor.observe(product(4096, 1), wrong);
    EXPECT_EQ(predictor.seconds(product(4096, 1)), before);
  }
  EXPECT_GT(predictor.seconds(Work{}), 0);
}

TEST(Predictor, LearnsTheLinkInEachDirection) {
  std::mt19937 random(5);
  Predictor predictor(some_rates());
  for (int i = 0; i < 50; ++i) {
    const double bytes = std::ldexp(4096, static_cast<int>(random() % 12));
    predictor.observe_transfer(LinkDirection::kUp, bytes, 25e-6 + bytes / 6e9);
    predictor.observe_transfer(LinkDirection::kDown, bytes, 40e-6 + bytes / 3e9);
  }
  for (const double bytes : {4096.0, 1e5, 3e6, 3e7}) {
    const double up = predictor.transfer_seconds(LinkDirection::kUp, bytes);
    const double down = predictor.transfer_seconds(LinkDirection::kDown, bytes);
    EXPECT_NEAR(up / (25e-6 + bytes / 6e9), 1, 0.05);
    EXPECT_NEAR(down / (40e-6 + bytes / 3e9), 1, 0.05);
  }
}

TEST(Predictor, TakesNanoseconds) {
  Predictor predictor(some_rates());
  const Work work = product(4096, 1);
  const int n = 100000;
  double sum = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < n; ++i) {
    predictor.observe(work, 1e-3 + 1e-9 * i);
    sum += predictor.seconds(work);
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  EXPECT_GT(sum, 0);
  std::printf("observe and predict: %.0f ns\n", taken.count() / n * 1e9);
  EXPECT_LT(taken.count() / n, 10e-6) << "even under a sanitizer";
}

TEST(PredictorRates, ComeFromTheMachineAndTheDevice) {
  Machine machine;
  machine.cpu.instruction_sets = {"avx2"};
  DeviceInfo device;
  device.memory_gb_per_s = 300;
  device.link_gb_per_s = 12;
  const PredictorRates rates = rates_of(machine, 4, 30, &device);
  EXPECT_DOUBLE_EQ(rates.cpu.bytes_per_second, 30e9);
  EXPECT_DOUBLE_EQ(rates.cpu.multiply_adds_per_second, 4 * 3e9 * 32);
  EXPECT_DOUBLE_EQ(rates.device.bytes_per_second, 300e9);
  EXPECT_DOUBLE_EQ(rates.link_bytes_per_second, 12e9);
  const DeviceInfo unknown;
  EXPECT_DOUBLE_EQ(rates_of(machine, 4, 30, &unknown).device.bytes_per_second, 30e9);
  EXPECT_DOUBLE_EQ(rates_of(machine, 4, 30, nullptr).link_bytes_per_second, 15e9);
}

TEST(PredictorWork, IsWhatAProgramReads) {
  for (const char* name : {"llama-q4_k", "qwen3moe-q4_k"}) {
    auto file = GgufFile::open(testing::golden_model(name));
    ASSERT_THAT(file, is_ok());
    auto program = build_decoder(*file);
    ASSERT_THAT(program, is_ok());
    StepSize size;
    size.n_pairs = size.n_active_experts = program->shape.n_experts_used;
    size.n_context = 100;
    double weights = 0, multiply_adds = 0, attended = 0;
    for (const Op& op : program->ops) {
      const Work work = work_of(*program, op, Processor::kCpu, size);
      EXPECT_GT(work.bytes, 0);
      EXPECT_EQ(work.kind, op.kind);
      if (op.kind == OpKind::kAttend) attended += work.bytes;
      if (op.kind != OpKind::kMatmul && op.kind != OpKind::kExpertMatmul) continue;
      Work without = work_of(
          *program,
          [&] {
            Op bare = op;
            bare.weight = kNoId;
            return bare;
          }(),
          Processor::kCpu, size);
      weights += work.bytes - without.bytes;
      multiply_adds += work.multiply_adds;
    }
    const auto bytes = static_cast<double>(program->bytes_per_token());
    EXPECT_NEAR(weights / bytes, 1, 0.02) << "but for norms";
    EXPECT_NEAR(multiply_adds / static_cast<double>(program->n_active_parameters()), 1, 0.35);
    const ModelShape& s = program->shape;
    EXPECT_GE(attended, static_cast<double>(2 * 100 * s.kv_width() * 2 * s.n_layers));
  }
}

}  // namespace
}  // namespace tandem
