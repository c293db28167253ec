#include "rsync/rsync_send.hpp"

#include <poll.h>

#include <algorithm>
#include <array>
#include <deque>
#include <exception>
#include <execnet/error.hpp>
#include <mutex>
#include <optional>
#include <utility>

#include "connection/value_message.hpp"
#include "loop/waiter.hpp"
#include "rsync/rsync_session.hpp"
#include "rsync/rsync_source.hpp"
#include "rsync/rsync_target.hpp"
#include "rsync/rsync_tree.hpp"

namespace execnet::core {
namespace {

// What the targets have sent, in the order in which it came. The dispatcher threads put it in; they may
// outlast send_tree(), so each holds a share.
class Mailbox {
 public:
  struct Mail {
    std::size_t target;
    std::optional<base::Buffer> item;  // none: the channel has ended
  };

  void put(Mail mail) {
    const std::lock_guard lock(mutex_);
    mails_.push_back(std::move(mail));
    waiter_.wake();
  }
  std::deque<Mail> take() {
    const std::lock_guard lock(mutex_);
    waiter_.clear();
    return std::exchange(mails_, {});
  }
  void wait(const base::Wait& wait) const {
    std::array<pollfd, 1> fds{{{waiter_.fd(), POLLIN, 0}}};
    base::poll_until(fds, wait);
  }

 private:
  std::mutex mutex_;
  loop::Waiter waiter_;
  std::deque<Mail> mails_;
};

class MailCallback final : public Callback {
 public:
  MailCallback(std::shared_ptr<Mailbox> mailbox, std::size_t target) : mailbox_(std::move(mailbox)), target_(target) {}

  std::optional<std::string> on_item(base::Buffer payload, StringConfig /*strings*/) override {
    mailbox_->put({target_, std::move(payload)});
    return std::nullopt;
  }
  void on_end() override { mailbox_->put({target_, std::nullopt}); }

 private:
  const std::shared_ptr<Mailbox> mailbox_;
  const std::size_t target_;
};

// The receiving side then takes back what is half done.
void tell_to_stop(ChannelHandle& channel) {
  try {
    channel.close(std::nullopt);
  } catch (const GatewayGone&) {  // this is a forked copy of the program: the channel is the parent's
  }
}

// A target, while there is something to do for it.
class Delivery final : public SessionObserver {
 public:
  Delivery(const SourceTree& tree, BlockHashes& hashes, const RSyncTarget& target, std::size_t index,
           RSyncObserver& observer)
      : session_(tree, hashes, target.destination, target.delete_others, *this),
        channel_(target.channel),
        index_(index),
        observer_(observer) {}

  // Sends one message if there is one; false if there is nothing to do before something comes in.
  bool step() {
    if (ended_ || !session_.can_send()) {
      return false;
    }
    if (const auto message = session_.next_message()) {
      return channel_->post(encode_value(Value(*message)));  // if not, its end is on the way
    }
    return session_.can_send();
  }

  void take(const std::optional<base::Buffer>& item) {
    if (!item) {
      end();
    } else if (!error_) {
      take_answer(*item);
    }
  }

  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] const std::exception_ptr& error() const { return error_; }
  [[nodiscard]] const std::vector<std::string>& unsteady() const { return session_.unsteady(); }
  void abandon() { tell_to_stop(*channel_); }

  void on_list(std::uint64_t bytes) override { observer_.on_list(index_, bytes); }
  void on_send_file(const std::string& relative) override { observer_.on_send_file(index_, relative); }
  void on_done(std::uint64_t bytes) override { observer_.on_ack(index_, bytes); }

 private:
  void take_answer(const base::Buffer& item) {
    Value answers;
    try {
      // Strings of a Python 2 are bytes; what is text there comes as text.
      answers = decode_value(item.view(), nullptr, {.py2str_as_py3str = false});
      session_.answered(answers);
    } catch (const DataFormatError&) {
      error_ = std::current_exception();
      abandon();
    }
  }

  void end() {
    ended_ = true;
    if (error_) {
      return;
    }
    error_ = channel_->take_error();
    if (!error_ && !session_.finished()) {
      error_ = std::make_exception_ptr(ChannelClosed("a target has ended before it had everything"));
    }
    if (!error_) {
      observer_.on_finished(index_);
    }
  }

  RSyncSession session_;
  const std::shared_ptr<ChannelHandle> channel_;
  const std::size_t index_;
  RSyncObserver& observer_;
  std::exception_ptr error_;
  bool ended_ = false;
};

// The targets of one send_tree(). What is not ended when this goes is told to stop.
class Deliveries {
 public:
  Deliveries(const SourceTree& tree, const std::vector<RSyncTarget>& targets, RSyncObserver& observer) {
    for (const RSyncTarget& target : targets) {
      const std::size_t index = all_.size();
      all_.push_back(std::make_unique<Delivery>(tree, hashes_, target, index, observer));
      target.channel->set_callback(std::make_shared<MailCallback>(mailbox_, index));
    }
  }
  ~Deliveries() {
    for (const auto& delivery : all_) {
      if (!delivery->ended()) {
        delivery->abandon();
      }
    }
  }
  Deliveries(const Deliveries&) = delete;
  Deliveries& operator=(const Deliveries&) = delete;

  void run(const base::Wait& wait) {
    while (!all_ended()) {
      for (Mailbox::Mail& mail : mailbox_->take()) {
        all_[mail.target]->take(mail.item);
      }
      bool worked = false;
      for (const auto& delivery : all_) {
        worked = delivery->step() || worked;
      }
      if (wait.interrupted != nullptr) {
        wait.interrupted();  // there may be work without waiting for long
      }
      if (!worked && !all_ended()) {
        mailbox_->wait(wait);
      }
    }
    for (const auto& delivery : all_) {
      if (delivery->error()) {
        std::rethrow_exception(delivery->error());
      }
    }
    for (const auto& delivery : all_) {
      if (!delivery->unsteady().empty()) {
        throw Error("'" + delivery->unsteady().front() + "' was written to, again and again, while it was sent; " +
                    "the targets keep what they had. Send it again when it holds still");
      }
    }
  }

 private:
  [[nodiscard]] bool all_ended() const {
    return std::all_of(all_.begin(), all_.end(), [](const auto& delivery) { return delivery->ended(); });
  }

  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  BlockHashes hashes_;
  std::vector<std::unique_ptr<Delivery>> all_;
};

}  // namespace

std::shared_ptr<ChannelHandle> start_rsync_target(GatewayEnd& gateway, const base::Wait& wait) {
  const Tuple task{rsync_target_source(), "<execnet rsync_target>", 1, "receive", Dict{}};
  // Sessions have windows of their own, and nothing in them may wait for one target.
  return gateway.exec(encode_value(Value(task)), wait, false);
}

void send_tree(const std::string& source, const std::vector<RSyncTarget>& targets, RSyncObserver& observer,
               const base::Wait& wait) {
  std::optional<SourceTree> tree;
  try {
    tree.emplace(source, [&](const std::string& path) {
      if (wait.interrupted != nullptr) {
        wait.interrupted();
      }
      return observer.filter(path);
    });
  } catch (...) {
    for (const RSyncTarget& target : targets) {
      tell_to_stop(*target.channel);
    }
    throw;
  }
  Deliveries deliveries(*tree, targets, observer);
  deliveries.run(wait);
}

}  // namespace execnet::core
