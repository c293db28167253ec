#include "gateway/worker_output.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <utility>

#include "base/syscall.hpp"
#include "base/utf8.hpp"

namespace execnet::core {
namespace {

constexpr std::size_t kMostOnTheWay = std::size_t{64} * 1024;
constexpr std::size_t kMostOfLine = std::size_t{64} * 1024;  // then a line is given in parts
// At the end: as much as a pipe holds that the worker has made as large as a user may. What has outlived it may print
// without end.
constexpr std::size_t kMostAtEnd = std::size_t{2} * 1024 * 1024;

}  // namespace

WorkerOutput::WorkerOutput(base::Fd pipe, std::shared_ptr<Connection> connection)
    : connection_(std::move(connection)),
      loop_(connection_->loop()),
      way_(std::make_shared<ChannelState>(0)),
      pipe_(std::move(pipe)) {
  base::check("fcntl", [&] { return ::fcntl(pipe_.get(), F_SETFL, O_NONBLOCK); });
}

WorkerOutput::~WorkerOutput() { loop_->unwatch(watch_); }

bool WorkerOutput::begin(Take take, bool in_greenlet) {
  const std::lock_guard own_lock(mutex_);
  auto lock = connection_->lock();
  const bool for_caller = connection_->dispatcher().start(lock, in_greenlet);
  take_ = std::move(take);
  way_->callback = shared_from_this();
  begun_ = true;
  if (finished_) {
    end(lock);  // before the mutex is let go of: the dispatcher of a finished connection ends when it has run all
    return for_caller;
  }
  lock.unlock();
  watch_ = loop_->watch(pipe_.get(), loop::kRead, [weak = weak_from_this()](std::uint32_t) {
    if (const auto self = weak.lock()) {
      const std::lock_guard self_lock(self->mutex_);
      self->take_in(kMostOnTheWay);
    }
  });
  return for_caller;
}

void WorkerOutput::take_in(std::size_t at_most) {
  try {
    read(at_most);
    if (begun_) {
      auto lock = connection_->lock();
      hand_over_lines(lock);
    }
  } catch (const std::bad_alloc&) {  // it goes on without what was printed until now
    pending_ = std::string();
  }
  if (pipe_ && on_the_way_ >= kMostOnTheWay) {
    loop_->set_interest(watch_, 0);
  }
}

void WorkerOutput::read(std::size_t at_most) {
  std::array<char, 16384> chunk;
  for (std::size_t total = 0; pipe_ && total < at_most;) {
    const ssize_t count = ::read(pipe_.get(), chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0 && errno == EAGAIN) {
      break;
    }
    if (count <= 0) {  // all who could print have closed it
      loop_->unwatch(watch_);
      pipe_.reset();
      break;
    }
    pending_.append(chunk.data(), static_cast<std::size_t>(count));
    total += static_cast<std::size_t>(count);
  }
}

void WorkerOutput::hand_over_lines(Connection::Lock& lock) {
  if (const std::size_t newline = pending_.rfind('\n'); newline != std::string::npos) {
    hand_over(lock, newline + 1);
  }
  while (pending_.size() > kMostOfLine) {
    hand_over(lock, base::whole_characters(pending_, kMostOfLine));
  }
}

void WorkerOutput::hand_over(Connection::Lock& lock, std::size_t size) {
  if (size == 0) {
    return;
  }
  base::Buffer text(std::string_view(pending_).substr(0, size));
  pending_.erase(0, size);
  on_the_way_ += size;
  connection_->dispatcher().push(lock, way_, std::move(text));
}

void WorkerOutput::end(Connection::Lock& lock) {
  hand_over(lock, pending_.size());
  connection_->dispatcher().push(lock, way_, std::nullopt);
}

void WorkerOutput::finish() {
  if (connection_->in_forked_copy()) {
    return;
  }
  const std::lock_guard own_lock(mutex_);
  if (std::exchange(finished_, true)) {
    return;
  }
  loop_->unwatch(watch_);
  take_in(kMostAtEnd);
  pipe_.reset();
  if (begun_) {
    auto lock = connection_->lock();
    end(lock);
  }
}

std::optional<std::string> WorkerOutput::on_item(base::Buffer payload, StringConfig /*strings*/) {
  if (take_ && !take_(payload.view())) {
    take_ = nullptr;
  }
  const std::lock_guard lock(mutex_);
  const bool was_full = on_the_way_ >= kMostOnTheWay;
  on_the_way_ -= payload.size();
  if (pipe_ && was_full && on_the_way_ < kMostOnTheWay) {
    loop_->set_interest(watch_, loop::kRead);
  }
  return std::nullopt;
}

void WorkerOutput::on_end() {
  if (take_) {
    take_({});
  }
  take_ = nullptr;
}

}  // namespace execnet::core
